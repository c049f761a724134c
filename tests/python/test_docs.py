"""The documentation: examples are run, and what it says of settings, metrics, errors and formats is true."""

import http
import json
import re
import shutil
import subprocess
import sys
import tarfile
from functools import cache
from urllib.parse import urlsplit

import pydicom
import pytest
from jsonschema import Draft202012Validator

import pages
from local import BINARY, ENVIRONMENT, ROOT, emulate, get, import_dicom, post, run, serve

OPENAPI = json.loads((ROOT / "src/server/openapi.json").read_text())
COMMANDS = (("serve",), ("ping",), ("run",), ("models",), ("man",), ("bundle", "check"), ("bundle", "compare"), ("fetch",), ("emulate",), ("import",), ("phantom",))


def page(name):
    return pages.pages()[name]


def named(pages_or_blocks):
    return {"argvalues": pages_or_blocks, "ids": [str(one) for one in pages_or_blocks]}


def code_of(path):
    """The text of a source file without its tests."""
    return (ROOT / path).read_text().split("#[cfg(test)]")[0]


def code(cell):
    """The words in backticks in a cell of a table."""
    return re.findall(r"`([^`]+)`", cell)


# Links and language.


@pytest.mark.parametrize("page", **named(list(pages.pages().values())))
def test_links_lead_somewhere(page):
    wrong = []
    for line, text, target in page.links():
        if "://" in target:
            url = urlsplit(target)
            fine = url.scheme == "https" and re.fullmatch(r"[\w-]+(\.[\w-]+)+", url.netloc) and " " not in target
        else:
            file, _, anchor = target.partition("#")
            to = (page.path.parent / file).resolve() if file else page.path
            other = pages.pages().get(str(to.relative_to(ROOT)))
            fine = to.exists() and (not anchor or other and anchor in other.anchors)
        if not fine or not text:
            wrong.append(f"{page}:{line}: {target}")
    assert not wrong, "\n".join(wrong)


def test_every_page_and_picture_is_reached():
    targets = {
        str((page.path.parent / target.partition("#")[0]).resolve().relative_to(ROOT))
        for page in pages.pages().values() for _, _, target in page.links()
        if "://" not in target and not target.startswith("#")
    }
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert there <= targets, there - targets
    for picture in (ROOT / "docs/images").iterdir():
        assert picture.stat().st_size < 150_000, picture


def test_lengths():
    assert len(page("README.md").text.splitlines()) <= 150
    long = [
        f"{page}:{number}" for page in pages.pages().values() for number, line in page.prose
        if len(line) > 120 and not line.startswith(("|", "![", "<!--")) and "https://" not in line
    ]
    assert not long, long


def test_spelling():
    paths = [str(page.path) for page in pages.pages().values()]
    # `OT` is a modality, `ro` a mount flag.
    flags = ["--builtin", "clear,rare,code", "--ignore-words-list", "ot,ro"]
    done = subprocess.run([sys.executable, "-m", "codespell_lib", *flags, *paths], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stdout, done.stdout + done.stderr


# Examples.


def test_every_example_is_run_or_says_why_not():
    unmarked = [str(block) for block in pages.blocks(*pages.RUNNABLE) if block.mark is None]
    assert not unmarked, unmarked
    # A command in a block without a language, or of another shell language, would escape.
    hidden = [
        str(block) for block in pages.blocks("", "bash", "shell", "console")
        if re.search(r"^\s*(\$ |ahi-inference|curl|cargo|scripts/)", block.text, re.MULTILINE)
    ]
    assert not hidden, hidden


@pytest.mark.parametrize("page", **named([p for p in pages.pages().values() if any(b.runs for b in p.blocks)]))
def test_examples_run(page, tmp_path):
    status, printed, complaints = pages.run(pages.to_run(page), tmp_path)
    assert status == 0, f"{status}\n{printed[-3000:]}\n{complaints[-6000:]}"


def test_a_wrong_example_is_noticed(tmp_path):
    """Running the examples fails if one of them fails, even at the head of a pipe."""
    texts = ("true\n", "target/release/ahi-inference no-such-command | cat\n", "touch not-reached\n")
    wrong = [pages.Block(None, line, "", "sh", "", text, "run") for line, text in enumerate(texts)]
    status, _, complaints = pages.run(wrong, tmp_path)
    assert status not in (0, None) and "no-such-command" in complaints
    assert not (tmp_path / "not-reached").exists()


def schema(name):
    return Draft202012Validator(OPENAPI | {"$ref": f"#/components/schemas/{name}"})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server beside a local HealthImaging and S3, and a request for the image set there."""
    folder = tmp_path_factory.mktemp("server")
    run("phantom", "--out", folder / "phantom", "--size", 64, "--slices", 40)
    (folder / "store/s3/results").mkdir(parents=True)
    image_set = import_dicom(folder / "phantom/dicom", folder / "store")
    with emulate(folder / "store") as cloud:
        environment = {"S3_ENDPOINT_URL": cloud.next_address(), "S3_PATH_STYLE": "true", "EXECUTION_PROVIDERS": "cpu"}
        with serve(ROOT / "model/ct_phantom", cloud.address, **environment) as running:
            running.image_set, running.dicom = image_set, folder / "phantom/dicom"
            yield running


@pytest.mark.parametrize("block", **named([b for b in pages.blocks("json") if b.kind == "request"]))
def test_requests_are_understood(block, server):
    document = json.loads(block.text)
    errors = [error.message for error in schema("Request").iter_errors(document)]
    assert not errors, errors
    # The objects they name do not exist, which is noticed only after the request is understood.
    assert not_understood(server, document) is None
    assert "noSuchField" in not_understood(server, document | {"noSuchField": 1})


def not_understood(server, document):
    error = json.loads(post(server.address, document)[2]).get("error", {})
    return error["message"] if error.get("code") == "invalid_request" and "path" in error["details"] else None


@pytest.mark.parametrize("block", **named([b for b in pages.blocks("json") if b.kind != "request"]))
def test_json_is_what_it_says(block, tmp_path):
    document = json.loads(block.text)
    schemas = {"answer": "Answer", "failure": "Failure"}
    if block.kind in schemas:
        errors = [error.message for error in schema(schemas[block.kind]).iter_errors(document)]
        assert not errors, errors
    elif block.kind == "endpoints":
        (tmp_path / "endpoints.json").write_text(block.text)
        flags = ("--endpoints", tmp_path / "endpoints.json", "--sagemaker-port", 0)
        with emulate(tmp_path / "store", *flags) as emulator:
            assert emulator.address
    elif block.kind == "serving":
        check_serving(document, tmp_path)
    else:
        raise AssertionError(f"{block}: say what it is of: request, answer, failure, endpoints or serving")


def check_serving(document, folder):
    """A package with this `serving.json` is read; its classes and images have the document's names."""
    bundle = shutil.copytree(ROOT / "model/ct_phantom", folder / "bundle")
    metadata = json.loads((bundle / "configs/metadata.json").read_text())
    outputs = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    for number, segment in enumerate(document.get("segments", []), 1):
        outputs[str(number)] = segment["label"]
    for image in document.get("images", []):
        metadata["network_data_format"]["inputs"]["image"]["channel_def"] = {"0": image["name"]}
    if name := document.get("execution", {}).get("gpuModel"):
        shutil.copy(bundle / "models/model.onnx", bundle / "models" / name)
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata))
    (bundle / "serving.json").write_text(json.dumps(document))
    report = json.loads(run("bundle", "check", "--json", bundle))
    assert report["runs"], report
    # And that the file is read at all.
    (bundle / "serving.json").write_text(json.dumps(document | {"noSuchField": 1}))
    done = subprocess.run([BINARY, "bundle", "check", bundle], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode != 0 and "noSuchField" in done.stdout + done.stderr


def test_the_answer_shown_is_one(server, tmp_path):
    """Every field of the example answer is in a real answer, with the same type."""
    [block] = [block for block in pages.blocks("json") if block.kind == "answer"]
    with tarfile.open(tmp_path / "ct.tar.gz", "w:gz") as archive:
        archive.add(server.dicom, "dicom")
    status, _, body = post(server.address, (tmp_path / "ct.tar.gz").read_bytes(), Content_Type="application/gzip")
    assert status == 200, body
    wrong = list(differences(json.loads(block.text), json.loads(body), ""))
    assert not wrong, wrong


def differences(shown, real, path):
    if isinstance(shown, dict) and isinstance(real, dict):
        for key, value in shown.items():
            if key not in real:
                yield f"{path}.{key} is not in the answer"
            else:
                yield from differences(value, real[key], f"{path}.{key}")
    elif isinstance(shown, list) and isinstance(real, list):
        for item in shown:
            if real:
                yield from differences(item, real[0], f"{path}[]")
    elif isinstance(shown, bool) != isinstance(real, bool) or isinstance(shown, str) != isinstance(real, str):
        yield f"{path} is {real!r} in the answer"


# Settings.


@cache
def helped(*command):
    """The flags of a subcommand: environment variable and default, according to its help."""
    text = run(*command, "--help")
    found = {}
    # A flag is indented by at most six characters, its description by more.
    for part in re.split(r"^(?= {2,6}(?:-\w, )?(?:--\w|\[?<))", text, flags=re.MULTILINE)[1:]:
        flag = re.match(r"\s+(?:-\w, )?(--[\w-]+|\[?<\w+>)", part).group(1)
        variable = re.search(r"\[env: (\w+)=?", part)
        # A default that the help text itself describes is not on a line of its own.
        default = re.search(r"^ +\[default: ([^\]]+)\]$", part.partition("[env:")[2], re.MULTILINE)
        if variable:
            found[flag] = (variable.group(1), default and default.group(1))
    return found


def all_settings():
    return {variable for command in COMMANDS for variable, _ in helped(*command).values()}


def all_flags():
    return {flag for command in COMMANDS for flag in helped(*command)} | {"--help", "--version"}


def test_every_setting_is_documented():
    text = page("docs/settings.md").text
    assert len(helped("serve")) > 40
    for command in COMMANDS:
        for flag, (variable, _) in helped(*command).items():
            assert f"`{variable}`" in text, f"{command}: {variable}"
            assert not flag.startswith("--") or f"`{flag}`" in text, f"{command}: {flag}"


def test_settings_are_as_they_are_documented():
    reference = page("docs/settings.md")
    rows = reference.rows("Variable", "Flag", "Default", "") + reference.rows("Variable", "Flag", "")
    assert len(rows) > 50
    known = {flag: setting for command in reversed(COMMANDS) for flag, setting in helped(*command).items()}
    for row in rows:
        variables, flags = code(row[0]), code(row[1])
        for variable, flag in zip(variables, flags):
            assert known[flag][0] == variable, row
        if len(row) == 4 and known.get(flags[0], (0, None))[1] is not None:
            assert code(row[2])[:1] == [known[flags[0]][1].strip('"')], row


# Variables that a library reads, and the library.
OF_LIBRARIES = {"SSL_CERT_FILE": "rustls-native-certs", "OTEL_EXPORTER_OTLP_HEADERS": "opentelemetry-otlp"} | dict.fromkeys(
    ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
     "OTEL_BSP_SCHEDULE_DELAY"), "opentelemetry_sdk")


def mentioned(word):
    """Whether a word that is not a setting is in the code, a script or a library."""
    if library := OF_LIBRARIES.get(word):
        return f'name = "{library}"' in (ROOT / "Cargo.lock").read_text()
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", everything()) is not None


@cache
def everything():
    """The text of everything that is not documentation."""
    folders = [ROOT / folder for folder in ("src", "scripts", "docker", "model", "notebooks", "tests/python")]
    files = [
        path for folder in folders for path in folder.rglob("*")
        if path.suffix in (".rs", ".py", ".sh", ".yaml", ".json", ".txt")
        and path.name not in ("pages.py", "test_docs.py")
    ]
    return "\n".join(path.read_text() for path in [*files, ROOT / "Dockerfile", ROOT / "buildspec.yml"])


def test_variables_and_flags_of_the_text_exist():
    settings, flags = all_settings(), all_flags()
    for one in pages.pages().values():
        for line, word in one.code_words():
            for variable in re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", word):
                assert variable in settings or mentioned(variable), f"{one}:{line}: {variable}"
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", word):
                assert flag in flags or mentioned(flag), f"{one}:{line}: {flag}"


def test_commands_of_examples_have_their_flags():
    for block in pages.blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for words in re.findall(r"(?:^|[/\s(])ahi-inference ((?:[a-z]+ ?)+[^|&>)]*)", line):
                command = tuple(words.split()[:2]) if words.startswith("bundle") else (words.split()[0],)
                used = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", words.split("#")[0]))
                assert used <= set(helped(*command)), f"{block}: {used - set(helped(*command))}"


# Routes, errors, metrics, formats.


def test_every_route_is_documented():
    listed = " ".join(cell for row in page("docs/serving.md").rows("Route", "") for cell in code(row[0]))
    for path in OPENAPI["paths"]:
        assert path in listed, path


# Statuses that Python names differently or does not know.
BY_OTHER_NAMES = {"PAYLOAD_TOO_LARGE": 413, "CLIENT_CLOSED_REQUEST": 499}


def test_errors_are_as_they_are_documented():
    codes = dict(re.findall(r'Self::(\w+) => "([a-z_]+)"', code_of("src/error.rs")))
    arms = re.search(r"pub fn status\(.*?\n}\n", code_of("src/server/status.rs"), re.DOTALL).group()
    statuses = {}
    for kinds, result in re.findall(r"((?:ErrorKind::\w+[\s|]*)+)=>\s*\{?\s*(?:return )?([^,}]+)", arms):
        constant = re.search(r"[A-Z][A-Z_]+(?!\w)", result.replace("StatusCode::", "")).group()
        number = BY_OTHER_NAMES.get(constant) or int(http.HTTPStatus[constant])
        statuses |= {codes[kind]: number for kind in re.findall(r"ErrorKind::(\w+)", kinds)}
    rows = page("docs/serving.md").rows("Status", "`code`", "Cause", "What to do")
    documented = {name: int(row[0]) for row in rows for name in code(row[1])}
    assert len(codes) > 20 and set(statuses) == set(codes.values())
    assert documented == statuses


def test_every_output_is_documented():
    kinds = set(OPENAPI["components"]["schemas"]["OutputKind"]["enum"])
    assert {kind for row in page("docs/results.md").rows("Output", "", "File") for kind in code(row[0])} == kinds
    [row] = [row for row in page("docs/serving.md").rows("Option", "") if "outputs" in row[0]]
    assert kinds <= set(code(row[1]))


@pytest.fixture(scope="module")
def measured(server):
    """The metrics of a server that has answered a request, and the timings of that answer."""
    status, _, body = post(server.address, server.image_set | {"outputS3Uri": "s3://results/measured"})
    assert status == 200, body
    return get(f"{server.address}/metrics")[2].decode(), json.loads(body)["results"][0]["timings"]


def test_the_dashboard_shows_metrics_and_labels_that_there_are(measured):
    dashboard = json.loads((ROOT / "docker/grafana-dashboard.json").read_text())
    kinds = {
        name: row[1] for row in page("docs/operations.md").rows("Name", "Kind", "") for name in code(row[0])
    }
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "info": ("_info",)}
    samples = {name + end for name, kind in kinds.items() for end in ends[kind]}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    queries += [one["query"]["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    assert len(panels) > 10 and len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for query in queries:
        names = re.findall(r"ahi_inference_\w+", query)
        assert names and set(names) <= samples, query
        assert query.count("(") == query.count(")") and query.count("{") == query.count("}"), query
        # A label used in a sum belongs to the metric, if the metric has samples by now.
        for by in re.findall(r"sum by \(([^)]*)\)", query):
            lines = [line for line in measured[0].splitlines() if re.match(rf"{names[0]}\{{", line)]
            for label in by.replace(" ", "").split(","):
                assert not lines or any(f'{label}="' in line for line in lines), (query, label)


def test_metrics_are_as_they_are_documented(measured):
    source = code_of("src/telemetry/metrics.rs")
    names = set(re.findall(r'n\.(?:add|0\.register)\(\s*"(\w+)"', source))
    calls = code_of("src/telemetry/calls.rs")
    for prefix in re.findall(r'Counters::new\(names, "(\w+)"', calls):
        names |= {f"{prefix}_{name}" for name in re.findall(r'add\("(\w+)"', calls)}
    documented = {
        name: row[1] for row in page("docs/operations.md").rows("Name", "Kind", "") for name in code(row[0])
    }
    assert {f"ahi_inference_{name}" for name in names} == set(documented)
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", measured[0], re.MULTILINE))
    assert len(kinds) > 20
    assert {name: documented[name] for name in kinds} == kinds


def test_stages_are_as_they_are_documented(measured):
    metrics, timings = measured
    documented = {stage for row in page("docs/operations.md").rows("`stage`", "") for stage in code(row[0])}
    stages, frames = (
        set(re.findall(rf'^ahi_inference_{name}\{{stage="(\w+)"', metrics, re.MULTILINE))
        for name in ("stage_seconds_count", "frame_seconds_total")
    )
    assert frames and documented == stages | frames
    assert set(timings) - {"total"} == stages - {"store"}


def test_transfer_syntaxes_are_as_they_are_documented():
    source = code_of("src/codec/table.rs")
    decoders = dict(re.findall(r'Self::(\w+) => "([\w-]+)"', source))
    both = re.search(r"const HTJ2K: &\[Decoder\] = &\[([^\]]+)\]", source).group(1)
    table = [
        [uid, name, ", ".join(decoders[one] for one in re.findall(r"Decoder::(\w+)", both if by == "HTJ2K" else by))]
        for uid, name, by in re.findall(r'entry\("([\d.]+)", "([^"]+)", (HTJ2K|&\[[^\]]+\])\)', source)
    ]
    assert len(table) == source.count('    entry("')
    assert page("docs/conformance.md").rows("UID", "Name", "Decoder") == table


def test_objects_are_as_they_are_documented(tmp_path):
    headings = ("Output", "SOP class", "UID", "Modality", "Transfer syntax", "Series Number")
    conformance = page("docs/conformance.md")
    rows = conformance.rows(*headings)
    assert len(rows) == 5
    run("phantom", "--out", tmp_path / "phantom", "--size", 64, "--slices", 40)
    source = pydicom.dcmread(next((tmp_path / "phantom/dicom").iterdir()))
    kinds = [code(row[0])[0] for row in rows]
    model = ROOT / "model/ct_phantom"
    flags = ("--model", model, "--out", tmp_path, "--output", ",".join(kinds))
    report = json.loads(run("run", tmp_path / "phantom/dicom", *flags))
    made = {output["kind"]: pydicom.dcmread(output["uri"].removeprefix("file://")) for output in report["outputs"]}
    for row, kind in zip(rows, kinds):
        instance = made[kind]
        # pydicom does not know the name of the newest class.
        assert instance.SOPClassUID == row[2] and instance.SOPClassUID.name in (row[1], row[2]), row
        assert instance.Modality == row[3]
        assert instance.file_meta.TransferSyntaxUID.name == row[4].split(";")[0]
        assert instance.SeriesNumber - source.SeriesNumber == int(row[5].removeprefix("source + "))
    fixed = conformance.rows("Output", "Attribute", "Value")
    assert len(fixed) > 15
    for output, keyword, value in fixed:
        values = made[code(output)[0]][keyword].value
        found = "\\".join(values) if isinstance(values, (list, pydicom.multival.MultiValue)) else str(values)
        assert found == value, (output, keyword, found)
    templates = {str(element.value) for element in made["dicom-sr"].iterall() if element.keyword == "TemplateIdentifier"}
    listed = {tid for row in conformance.rows("Template", "Where") for tid in re.findall(r"TID (\d+)", row[0])}
    assert templates and templates <= listed


def test_transforms_are_as_they_are_documented():
    parts = {row[0]: set(code(row[1])) for row in page("docs/models.md").rows("Part", "")}
    built = set(re.findall(r'^\s+"(\w+)" =>', code_of("src/transforms/build.rs"), re.MULTILINE))
    assert len(built) > 20 and built <= parts["Preprocessing"]
    beyond = parts["Preprocessing"] - built - {"d"}
    elsewhere = code_of("src/transforms/chain.rs") + code_of("src/transforms/squeeze.rs")
    assert all(f'"{name}' in elsewhere for name in beyond), beyond
    assert parts["Inference"] == set(re.findall(r'"(S\w+Inferer\w*)"', code_of("src/inference/inferer.rs")))
    files = [path for folder in ("plan", "components") for path in (ROOT / "src/postprocess" / folder).glob("*.rs")]
    operations = re.findall(r'"(\w+)d" \| "\w+"', "".join(code_of(path) for path in files))
    assert parts["Postprocessing"] >= set(operations), set(operations) - parts["Postprocessing"]


def imports():
    """What each module of the crate imports from the others, tests left out."""
    found = {}
    for path in (ROOT / "src").rglob("*.rs"):
        parts = path.relative_to(ROOT / "src").parts
        module = parts[0].removesuffix(".rs")
        if "tests" in parts or path.name == "tests.rs" or module in ("lib", "main", "fuzzing"):
            continue
        text = re.sub(r"^\s*//.*$", "", code_of(path), flags=re.MULTILINE)
        assert "crate::{" not in text, f"{path}: one line for each module"
        found.setdefault(module, set()).update(set(re.findall(r"\bcrate::(\w+)", text)) - {module})
    return found


def test_modules_are_as_they_are_documented():
    development = page("docs/development.md")
    table = {code(row[0])[0]: row[2] for row in development.rows("Module in `src`", "What it does", "Imports")}
    shared = {"error", "memory", "request", "policy", "archive", "progress", "cpu", "disjoint", "kernels"}
    there = imports()
    assert set(table) == set(there) - shared
    for module, listed in table.items():
        assert listed == "everything" or set(code(listed)) == there[module] - shared, module
    # No import leads back to where it began.
    for module in there:
        reached, waiting = set(), [module]
        while waiting:
            new = there[waiting.pop()] - reached
            assert module not in new, f"{module} imports itself by others"
            reached |= new
            waiting += new
