"""The page in Chromium: list, run, result, downloads, errors; and without a browser, who may request it."""

import hashlib
import http.client
import json
import subprocess
import time
import urllib.request
from urllib.parse import urljoin, urlsplit

import pydicom
import pytest

import tiny
from browsing import CONTRAST, Browser, changed, skip_without
from local import BINARY, ENVIRONMENT, ROOT, emulate, find_files, get, import_dicom, post, run, serve

MODEL = ROOT / "model/ct_phantom"
PATIENT = "Nobody^Known"
CONTROLS = {"button", "checkbox", "radio", "combobox", "slider", "spinbutton", "searchbox", "textbox", "link"}


@pytest.fixture(scope="module")
def viewer():
    """The folder of the viewer, which the script downloads if it is missing."""
    done = subprocess.run([ROOT / "scripts/get-viewer.sh"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A data store with two image sets; all frames of the second are missing."""
    folder = tmp_path_factory.mktemp("ui")
    sets = []
    for number, description in enumerate(("CT abdomen", "CT abdomen, <b>damaged</b>")):
        made = folder / f"phantom{number}"
        run("phantom", "--out", made, "--size", 96, "--slices", 64, "--seed", 40 + number)
        for file in (made / "dicom").iterdir():
            dataset = pydicom.dcmread(file)
            dataset.PatientName, dataset.StudyDescription = PATIENT, description
            dataset.save_as(file)
        into = ["--datastore", sets[0]["datastoreId"]] if sets else []
        imported = json.loads(run("import", made / "dicom", "--folder", folder / "store", *into))
        sets.append({"datastoreId": imported["datastoreId"], "imageSetId": imported["imageSets"][0]["imageSetId"]})
    damaged = sets[1]["imageSetId"]
    frames = find_files(folder / "store", lambda path: damaged in str(path) and path.parent.name == "frames")
    assert len(frames) == 64
    for frame in frames:
        frame.unlink()
    return folder / "store", sets


@pytest.fixture(scope="module")
def server(store, viewer):
    with emulate(store[0]) as cloud:
        with serve(MODEL, cloud.address, "--ui", UI_ASSETS=viewer, EXECUTION_PROVIDERS="cpu") as running:
            running.cloud = cloud.address
            yield running


def ask(server, path, method="GET", host=None, body=None, **headers):
    """One request with the given headers."""
    url = urlsplit(server.address)
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=120)
    connection.putrequest(method, path, skip_host=True)
    named = {"Host": host or url.netloc} | {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        named |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
    for name, value in named.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, read


# Without a browser.


def test_the_page_and_what_it_lists(server, store):
    status, headers, body = ask(server, "/ui/")
    assert status == 200 and b"<!doctype html>" in body
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert ask(server, "/")[1]["location"] == "/ui/"
    for name in ("page.css", "app.js", "niivue.js", "niivue-LICENSE.txt"):
        assert ask(server, f"/ui/{name}")[0] == 200, name
    for name in ("nothing.js", "..%2fmod.rs", "%2e%2e", "api"):
        assert ask(server, f"/ui/{name}")[0] == 404, name

    [first, second] = store[1]
    stores = json.loads(ask(server, "/ui/api/datastores")[2])["datastores"]
    assert [one["datastoreId"] for one in stores] == [first["datastoreId"]]
    listed = f"/ui/api/datastores/{first['datastoreId']}/image-sets"
    body = ask(server, listed)[2]
    sets = {one["imageSetId"]: one for one in json.loads(body)["imageSets"]}
    assert set(sets) == {first["imageSetId"], second["imageSetId"]}
    assert sets[first["imageSetId"]]["modality"] == "CT" and sets[first["imageSetId"]]["studyInstances"] == 64
    assert b"Nobody" not in body
    for path, code in [
        ("/ui/api/datastores/x/image-sets", 400), (f"/ui/api/datastores/{'0' * 32}/image-sets", 404),
        (f"{listed}?next=%00", 400), (f"{listed}?next={'a' * 9000}", 400), (f"{listed}?nxt=a", 400),
    ]:
        status, _, body = ask(server, path)
        assert status == code and "error" in json.loads(body), (path, status, body)


def test_pages_of_other_hosts_are_kept_away(server):
    port = urlsplit(server.address).port
    for host in ("evil.example", f"evil.example:{port}", "localhost.evil.example", "192.0.2.1", "[2001:db8::1]"):
        for method, path in (("GET", "/ui/"), ("GET", "/ui/api/datastores"), ("POST", "/invocations"), ("GET", "/info")):
            status, _, body = ask(server, path, method, host, b"{}" if method == "POST" else None)
            assert status == 403 and json.loads(body)["error"]["code"] == "access_denied", (host, path)
    assert ask(server, "/ui/", host=f"localhost:{port}")[0] == 200
    assert ask(server, "/ping", host="10.1.2.3:8080")[0] == 200
    own = f"127.0.0.1:{port}"
    for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"},
    ):
        for path in ("/ui/api/runs", "/invocations"):
            assert ask(server, path, "POST", own, b"{}", **headers)[0] == 403, (path, headers)
        assert ask(server, "/ui/api/datastores", host=own, **headers)[0] == 403, headers
        assert ask(server, "/ui/", host=own, **headers)[0] == 200, "a link"
    # Programs send none of these headers, and the page sends the right ones.
    assert ask(server, "/invocations", "POST", own, b"{}")[0] == 400
    assert ask(server, "/ui/api/runs", "POST", own, b"{}", Origin=f"http://{own}", Sec_Fetch_Site="same-origin")[0] == 400


def test_results_are_read_by_those_who_know_their_name(server, store):
    request = store[1][0] | {"outputs": ["dicom-seg", "nifti", "nifti-image"]}
    status, headers, body = ask(server, "/ui/api/runs", "POST", body=json.dumps(request).encode())
    assert status == 200, body
    result, outputs = headers["x-result-id"], json.loads(body)["results"][0]["outputs"]
    assert len(outputs) == 3 and not any("data" in output for output in outputs)
    for output in outputs:
        status, headers, content = ask(server, f"/ui/api/results/{result}/{output['fileName']}")
        assert status == 200 and hashlib.sha256(content).hexdigest() == output["sha256"]
        assert headers["content-type"] == output["mediaType"]
        assert headers["content-disposition"] == f'attachment; filename="{output["fileName"]}"'
    name = outputs[0]["fileName"]
    for wrong in (
        f"{'0' * 32}/{name}", f"{result}/x", f"{result}/..%2f{result}%2f{name}", f"..%2f{result}/{name}",
        f"{result}/%2e%2e", f"{result}%00/{name}",
    ):
        assert ask(server, f"/ui/api/results/{wrong}")[0] == 404, wrong
    # A run that fails leaves nothing behind.
    status, headers, _ = ask(server, "/ui/api/runs", "POST", body=json.dumps(store[1][1]).encode())
    assert status == 404 and ask(server, f"/ui/api/results/{headers['x-result-id']}/{name}")[0] == 404


def test_the_latest_eight_results_are_kept_until_the_server_ends(store, viewer, tmp_path):
    (tmp_path / "temporary").mkdir()
    environment = {"UI_ASSETS": viewer, "EXECUTION_PROVIDERS": "cpu", "TMPDIR": str(tmp_path / "temporary")}
    with emulate(store[0]) as cloud, serve(MODEL, cloud.address, "--ui", **environment) as server:
        made = []
        for _ in range(10):
            _, headers, body = ask(server, "/ui/api/runs", "POST", body=json.dumps(store[1][0]).encode())
            made.append(f"{headers['x-result-id']}/{json.loads(body)['results'][0]['outputs'][0]['fileName']}")
        for _ in range(100):
            there = [ask(server, f"/ui/api/results/{one}")[0] == 200 for one in made]
            if there == [False] * 2 + [True] * 8:
                break
            time.sleep(0.05)
        assert there == [False] * 2 + [True] * 8
        assert list((tmp_path / "temporary").glob("ahi-inference-ui-*"))
    assert not list((tmp_path / "temporary").glob("ahi-inference-ui-*"))


def refused(*flags, **environment):
    done = subprocess.run(
        [BINARY, "serve", "--model", MODEL, "--port", "0", *flags], capture_output=True, text=True, timeout=60,
        env=ENVIRONMENT | {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"} | environment,
    )
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_where_there_is_no_page(viewer, tmp_path, store):
    loopback = ("--ui", "--host", "127.0.0.1", "--ui-assets", viewer)
    assert "--ui-allow-remote" in refused("--ui", "--ui-assets", viewer)
    for variable in ("SAGEMAKER_BATCH", "SAGEMAKER_MULTI_MODEL", "SAGEMAKER_SAFE_PORT_RANGE"):
        assert "SageMaker" in refused(*loopback, **{variable: "true"}), variable
    assert "scripts/get-viewer.sh" in refused("--ui", "--host", "127.0.0.1", "--ui-assets", tmp_path)
    # Off by default, and then no client is turned away.
    with emulate(store[0]) as cloud, serve(MODEL, cloud.address, EXECUTION_PROVIDERS="cpu") as server:
        for path in ("/", "/ui/", "/ui/api/datastores", "/ui/app.js"):
            assert ask(server, path)[0] == 404, path
        assert ask(server, "/info", host="any.example")[0] == 200


def test_data_stores_that_requests_may_not_name_are_not_listed(store, viewer):
    other = "0" * 32
    with emulate(store[0]) as cloud:
        environment = {"UI_ASSETS": viewer, "AHI_ALLOWED_DATASTORES": other, "EXECUTION_PROVIDERS": "cpu"}
        with serve(MODEL, cloud.address, "--ui", **environment) as server:
            assert json.loads(ask(server, "/ui/api/datastores")[2]) == {"datastores": []}
            status, _, body = ask(server, f"/ui/api/datastores/{store[1][0]['datastoreId']}/image-sets")
            assert status == 403 and "AHI_ALLOWED_DATASTORES" in body.decode()


def test_emulate_says_how_to_start_the_page(tmp_path):
    with emulate(tmp_path) as cloud:
        cloud.next_address()
        assert f"AHI_ENDPOINT_URL={cloud.address}" in cloud.process.stdout.readline()


# In a browser: one after another, as a user would go through the page.


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    with Browser(downloads) as running:
        running.downloads = downloads
        yield running


@pytest.fixture(scope="module")
def page(browser, server, store):
    """The page with its list."""
    browser.driver.get(f"{server.address}/ui/")
    browser.until("document.querySelectorAll('#image-sets tbody tr').length === 2", "the list")
    browser.until("document.querySelectorAll('#segments input').length === 4", "the model")
    return browser


def choose(page, image_set):
    page.click(f"#image-sets input[value='{image_set['imageSetId']}']")


@pytest.fixture(scope="module")
def result(page, server, store):
    """The page with a result."""
    choose(page, store[1][0])
    page.keep("list")
    page.click("#outputs input[value='dicom-sr']")
    page.click("#run")
    page.until("document.querySelectorAll('#stages li').length > 1", "progress")
    page.keep("running")
    page.until("document.querySelector('#canvas').dataset.ready === 'true'", "the result")
    return page


@skip_without()
def test_image_sets_are_listed_and_filtered(page):
    from selenium.webdriver.common.keys import Keys

    rows = [row.text for row in page.all("#image-sets tbody tr")]
    assert any("CT abdomen" in row and "CT" in row for row in rows)
    # Text in the data is shown as text, not as markup.
    assert any("<b>damaged</b>" in row for row in rows) and not page.all("#image-sets b")
    assert "Nobody" not in page.driver.page_source
    assert not page.one("#run").is_enabled()
    page.set("#filter", "ct damaged")
    assert len(page.all("#image-sets tbody tr")) == 1
    page.set("#filter", "no such thing")
    assert len(page.all("#image-sets tbody tr")) == 0
    page.set("#filter", "")
    assert len(page.all("#image-sets tbody tr")) == 2
    # By keyboard: the arrow keys move from one to the next.
    page.one("#image-sets input").send_keys(Keys.SPACE)
    first = page.text("#chosen")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert page.text("#chosen") != first and page.one("#run").is_enabled()
    assert len(page.all("#image-sets tr.chosen")) == 1


@skip_without()
def test_a_run_shows_its_stages_and_its_result(result, server, store):
    stages = [stage.text.split("\n")[0] for stage in result.all("#stages li")]
    assert {"Headers", "Frames", "Network", "Outputs"} <= {stage.split(" 1")[0] for stage in stages}, stages
    assert result.text("#progress-state") == "Finished."
    assert not result.one("#error").is_displayed()
    report = json.loads(post(server.address, store[1][0])[2])["results"][0]
    rows = [row.text for row in result.all("#volumes tbody tr")]
    assert len(rows) == len(report["segments"]) == 4
    for row, segment in zip(rows, report["segments"]):
        assert segment["label"] in row.replace("\n", " ")
        assert f"{segment['millilitres']:,.1f}".removesuffix(".0") in row.split(), (row, segment["millilitres"])
    assert result.text("#place") and "Loading" not in result.text("#place")


@skip_without()
def test_segments_are_shown_over_the_image_and_hidden(result):
    result.click("input[name=view][value=axial]")
    whole = result.settled()
    # The segments' colours are in it.
    colors = {color for _, color in whole.getcolors(1 << 20)}
    assert sum(max(color) - min(color) > 60 for color in colors) > 10
    result.click("#none")
    plain = result.settled()
    assert 0.002 < changed(whole, plain) < 0.5
    result.click("#volumes tbody tr:nth-child(2) input")
    liver = result.settled()
    assert changed(plain, liver) > 0.001 and changed(whole, liver) > 0.0005
    result.click("#all")
    assert changed(whole, result.settled()) < 0.001
    result.set("#opacity", 20)
    assert changed(whole, result.settled()) > 0.002
    result.set("#opacity", 60)
    result.set("#window", "Lung")
    assert changed(whole, result.settled()) > 0.05
    result.set("#level", 0)
    assert result.script("return document.querySelector('#window').value") == "Custom"
    result.set("#window", "Abdomen")
    assert changed(whole, result.settled()) < 0.001
    result.set("#slice-2", 800)
    assert changed(whole, result.settled()) > 0.01
    result.set("#slice-2", 500)


@skip_without()
def test_every_view_draws(result):
    before = result.settled()
    for view in ("coronal", "sagittal", "render", "multi"):
        result.click(f"input[name=view][value={view}]")
        now = result.settled()
        assert changed(before, now) > 0.01, view
        assert sum(count for count, color in now.getcolors(1 << 20) if max(color) > 60) > 1000, view
        if view == "render":
            result.keep("3d")
            result.click("#image")
            assert changed(now, result.settled()) > 0.005
            result.click("#image")
        before = now
    result.script("document.querySelector('#result').scrollIntoView()")
    result.keep("result")


@skip_without()
def test_outputs_are_downloaded(result, server):
    links = result.script(
        "return [...document.querySelectorAll('#files a')].map((a) => [a.textContent, a.href, a.download])")
    assert {name for name, _, _ in links} == {"DICOM SEG", "DICOM SR", "Label map (NIfTI)", "Image (NIfTI)"}
    report = json.loads(result.text("#report"))
    digests = {output["fileName"]: output["sha256"] for output in report["results"][0]["outputs"]}
    for number, (_, url, name) in enumerate(links, 1):
        assert url.startswith(f"{server.address}/ui/api/results/")
        with urllib.request.urlopen(urljoin(server.address, url)) as answer:
            assert hashlib.sha256(answer.read()).hexdigest() == digests[name]
        # One click at a time, as a user would: Chromium asks before a script downloads several files.
        result.patiently(result.one(f"#files li:nth-child({number}) a").click)
        for _ in range(200):
            if (result.downloads / name).exists():
                break
            time.sleep(0.1)
        assert hashlib.sha256((result.downloads / name).read_bytes()).hexdigest() == digests[name]


@skip_without()
def test_everybody_can_use_it(result):
    named = [(role, name) for role, name, _ in result.nodes() if role.lower() in CONTROLS]
    assert len(named) > 30 and all(name.strip() for _, name in named), [role for role, name in named if not name]
    names = [name for role, name, _ in result.nodes() if role in ("region", "form", "img", "image", "Canvas")]
    assert names and all(names)
    for scheme in ("light", "dark"):
        result.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        seen, wrong = result.script(CONTRAST, 4.5)
        assert seen > 60 and not wrong, (scheme, wrong)
        result.keep(f"result-{scheme}")
    result.cdp("Emulation.setEmulatedMedia", features=[])


@skip_without()
def test_the_keyboard_reaches_everything_and_shows_where_it_is(result):
    from selenium.webdriver.common.keys import Keys

    press = lambda keys: result.patiently(lambda: result.driver.switch_to.active_element.send_keys(keys))
    result.script("window.scrollTo(0, 0); document.querySelector('.skip').focus()")
    # After a mouse click, browsers show focus only once a key has moved it: there and back.
    press(Keys.TAB)
    press(Keys.SHIFT + Keys.TAB)
    assert result.script("return document.activeElement.matches('.skip')")
    order = []
    for _ in range(120):
        said = result.script(
            "const at = document.activeElement, style = getComputedStyle(at);"
            "return [at.id || at.name || at.tagName, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2]")
        if said[0] == "BODY" or (order and said[0] == order[0][0]):
            break
        order.append(said)
        press(Keys.TAB)
    names = [name for name, _ in order]
    assert all(visible for _, visible in order), [name for name, visible in order if not visible]
    wanted = ["datastore", "filter", "image-set", "model", "output", "segment", "run", "view", "canvas", "window", "opacity", "shown"]
    places = [names.index(name) for name in wanted]
    assert places == sorted(places), names


@skip_without()
def test_narrow_screens(result):
    result.cdp("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=1, mobile=True)
    result.settled()
    wide = result.script(
        "return [...document.querySelectorAll('body *')].filter((one) => one.checkVisibility()"
        " && !one.closest('.scroll, .hidden, .skip, pre') && one.getBoundingClientRect().right > innerWidth + 1)"
        ".map((one) => one.tagName + '#' + one.id)")
    assert result.script("return document.documentElement.scrollWidth") <= 360 and not wide, wide
    result.script("document.querySelector('#result').scrollIntoView()")
    result.keep("narrow")
    result.cdp("Emulation.clearDeviceMetricsOverride")


@skip_without()
def test_errors_are_told_as_people_read_them(result, store):
    choose(result, store[1][1])
    result.click("#run")
    result.until("!document.querySelector('#error').hidden", "the error")
    told = result.text("#error")
    assert store[1][1]["imageSetId"] in told and "not_found" in told and "404" in told
    assert result.text("#error-advice")
    assert result.text("#progress-state") == "Failed."
    assert result.script("return document.querySelector('#error').getAttribute('role')") == "alert"
    result.script("window.scrollTo(0, 0)")
    result.keep("error")
    # And the page remains usable.
    result.click("#error-close")
    assert not result.one("#error").is_displayed()
    assert result.one("#run").is_enabled()


@skip_without()
def test_a_run_is_cancelled(result, store):
    choose(result, store[1][0])
    # Both clicks in one turn of the event loop, so the run cannot have ended in between.
    result.script("document.querySelector('#run').click(); document.querySelector('#cancel').click()")
    result.until("document.querySelector('#cancel').hidden", "the end")
    assert result.text("#progress-state") == "Cancelled."
    assert not result.one("#error").is_displayed() and result.one("#run").is_enabled()


@skip_without()
def test_overlapping_masks_are_shown(browser, page, store, viewer, tmp_path):
    bundle = tiny.overlapping(tmp_path / "masks")
    with emulate(store[0]) as cloud, serve(bundle, cloud.address, "--ui", UI_ASSETS=viewer) as server:
        browser.driver.get(f"{server.address}/ui/")
        browser.until("document.querySelectorAll('#image-sets tbody tr').length === 2", "the list")
        choose(browser, store[1][0])
        browser.until("!document.querySelector('#run').disabled", "the model")
        browser.click("#run")
        browser.until("document.querySelector('#canvas').dataset.ready === 'true'", "the result")
        assert "volume" in json.loads(browser.text("#report"))["results"][0]["segments"][0]["in"]["nifti"]
        browser.click("input[name=view][value=axial]")
        whole = browser.settled()
        browser.click("#volumes tbody tr:nth-child(1) input")
        assert changed(whole, browser.settled()) > 0.002
        browser.click("#all")
        assert changed(whole, browser.settled()) < 0.001


@skip_without()
def test_a_model_of_two_images_gets_an_image_set_for_each(browser, server, store, viewer, tmp_path):
    model = tiny.pair_bundle(tmp_path / "pair", 40)
    with serve(model, server.cloud, "--ui", UI_ASSETS=viewer, EXECUTION_PROVIDERS="cpu") as pair:
        browser.driver.get(f"{pair.address}/ui/")
        browser.until("document.querySelectorAll('#image-sets tbody tr').length === 2", "the list")
        browser.until("document.querySelectorAll('#images li').length === 2", "the model's images")
        buttons = lambda: browser.all("#images button")
        assert [button.get_attribute("aria-label") for button in buttons()] == [
            "Use the chosen image set as before", "Use the chosen image set as after"]
        assert not any(button.is_enabled() for button in buttons())
        choose(browser, store[1][0])
        assert browser.text("#chosen") == "To be assigned: before, after." and not browser.one("#run").is_enabled()
        browser.click("#images button[data-name=before]")
        assert browser.text("#chosen") == "To be assigned: after." and not browser.one("#run").is_enabled()
        # Focus stays where a keyboard user left it.
        assert browser.script("return document.activeElement.dataset.name") == "before"
        browser.click("#images button[data-name=after]")
        assert browser.text("#chosen") == "All images are assigned." and browser.one("#run").is_enabled()
        assert "CT abdomen" in browser.text("#images") and store[1][0]["imageSetId"] in browser.text("#images")
        browser.keep("two-images")
        browser.click("#run")
        browser.until("document.querySelector('#canvas').dataset.ready === 'true'", "the result")
        place = {name: store[1][0][name] for name in ("datastoreId", "imageSetId")}
        by_request = json.loads(post(pair.address, {"images": {"before": place, "after": place}})[2])["results"][0]
        shown = json.loads(browser.text("#report"))["results"][0]
        assert shown["segments"][0]["voxels"] == by_request["segments"][0]["voxels"] > 0


@skip_without()
def test_nothing_is_asked_of_other_hosts_and_nothing_is_refused(browser, server):
    """Runs last, and covers everything done before."""
    browser.listen()
    fetched = [url for url in browser.urls if urlsplit(url).scheme not in ("data", "blob", "chrome", "about")]
    assert len(fetched) > 10
    assert {urlsplit(url).hostname for url in fetched} == {"127.0.0.1"}
    # The browser complains only about answers that are errors.
    others = [said for said in browser.complaints if "the server responded with a status of" not in said]
    assert not others, others
