"""A multi-model endpoint, one under load, and what a server reports about itself, with real clients.

SOAK_MODELS, SOAK_TIMES and SOAK_CLIENTS make the soak test longer (scripts/soak.py is the full one).
"""

import json
import os
import resource
import threading
import time
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import tiny
from load import load, load_and_stop
from local import ROOT, emulate, multi_model, serve
from soak import soak
from traffic import ask, model_path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return tiny.images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def ahi(images):
    with emulate(images.store) as running:
        yield running


def load_model(server, name, folder):
    return ask(server.address, "POST", "/models", {"model_name": name, "url": str(folder)})


def series(server):
    """Samples of /metrics by name and labels."""
    text = ask(server.address, "GET", "/metrics").body.decode()
    families = text_string_to_metric_families(text)
    return {(s.name, *sorted(s.labels.values())): s.value for f in families for s in f.samples}


def test_models_come_and_go(images, ahi, tmp_path):
    with multi_model(ahi.address) as server:
        name = "0f/organs v1 ü.tar.gz"
        folder = tiny.bundle(tmp_path / "nested/model", 3).parent
        loaded = load_model(server, name, folder)
        assert (loaded.status, loaded.json()) == (200, {"modelName": name, "modelUrl": str(folder)})
        assert load_model(server, name, folder).code == "model_already_loaded"
        target = {"X-Amzn-SageMaker-Target-Model": "organs v1.tar.gz"}
        answer = ask(server.address, "POST", f"{model_path(name)}/invoke", images.request, **target)
        assert answer.status == 200, answer.body
        assert tiny.check(answer.json(), images, 3) is None
        assert answer.json()["model"] == name
        # Also by the header on /invocations, with exactly this name.
        tiny.bundle(tmp_path / "second", 9)
        assert load_model(server, "second", tmp_path / "second").status == 200
        answer = ask(server.address, "POST", "/invocations", images.request | {"model": "second"})
        assert tiny.check(answer.json(), images, 9) is None
        for other in ("second.tar.gz", "model"):
            answer = ask(server.address, "POST", "/invocations", images.request | {"model": other})
            assert (answer.status, answer.code) == (404, "model_not_found")
        assert ask(server.address, "POST", "/invocations", images.request).code == "invalid_request"
        assert ask(server.address, "DELETE", model_path(name)).status == 200
        for method, path in [("GET", ""), ("DELETE", ""), ("POST", "/invoke")]:
            gone = ask(server.address, method, model_path(name) + path, images.request)
            assert (gone.status, gone.code) == (404, "model_not_found")


def test_unloading_waits_for_what_runs_and_holds_up_nobody(images, ahi, tmp_path):
    tiny.bundle(tmp_path / "a", 1)
    tiny.bundle(tmp_path / "b", 2)
    # One at a time, so that requests for the model wait in the queue while it is unloaded.
    with multi_model(ahi.address, "--max-concurrent", 1) as server:
        for name in "ab":
            assert load_model(server, name, tmp_path / name).status == 200
        answers = []
        ask_a = lambda: answers.append(ask(server.address, "POST", "/models/a/invoke", images.request))
        clients = [threading.Thread(target=ask_a) for _ in range(6)]
        for client in clients:
            client.start()
        while series(server)[("ahi_inference_requests_waiting",)] < 3:
            time.sleep(0.005)
        unloaded = ask(server.address, "DELETE", "/models/a")
        other = ask(server.address, "POST", "/models/b/invoke", images.request)
        for client in clients:
            client.join()
        assert unloaded.status == 200
        assert tiny.check(other.json(), images, 2) is None
        # Requests accepted before are answered; later ones did not find the model.
        assert {a.status for a in answers} <= {200, 404}
        done = [a for a in answers if a.status == 200]
        assert len(done) >= 4 and all(tiny.check(a.json(), images, 1) is None for a in done)


def test_memory_is_refused_by_account(images, ahi, tmp_path):
    model = ROOT / "model/ct_phantom"
    # Room for one model, which takes about 144 MB with a single session on ONNX Runtime's own kernels.
    only = {"CPU_THREADS": "1", "EXECUTION_PROVIDERS": "cpu"}
    with multi_model(ahi.address, "--memory-budget-bytes", 150_000_000, **only) as server:
        assert load_model(server, "one", model).status == 200
        used = series(server)[("ahi_inference_model_bytes",)]
        refused = load_model(server, "two", model)
        assert (refused.status, refused.code) == (507, "out_of_memory")
        assert refused.json()["error"]["details"]["budgetBytes"] == 150_000_000
        assert ask(server.address, "GET", "/models/two").status == 404
        assert series(server)[("ahi_inference_model_bytes",)] == used
        assert ask(server.address, "DELETE", "/models/one").status == 200
        assert series(server)[("ahi_inference_model_bytes",)] == 0
        assert load_model(server, "two", model).status == 200


def test_memory_that_is_not_there_is_refused(images, ahi, tmp_path):
    """ONNX Runtime's allocations fail, even though the budget allows them."""
    model = ROOT / "model/ct_phantom"
    with multi_model(ahi.address, "--memory-budget-bytes", 1 << 40) as server:
        assert load_model(server, "m", model).status == 200
        assert ask(server.address, "DELETE", "/models/m").status == 200
        unbounded = resource.RLIM_INFINITY
        # Memory that the first load mapped and released may do for another load; then less is left.
        for spare in (48 << 20, 16 << 20, 4 << 20):
            status = Path(f"/proc/{server.process.pid}/status").read_text()
            mapped = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmSize:"))
            resource.prlimit(server.process.pid, resource.RLIMIT_AS, (mapped + spare, unbounded))
            refused = load_model(server, "m", model)
            if refused.status != 200:
                break
            assert ask(server.address, "DELETE", "/models/m").status == 200
        for _ in range(3):
            assert (refused.status, refused.code) == (507, "out_of_memory"), refused.body
            assert ask(server.address, "GET", "/ping").status == 200
            refused = load_model(server, "m", model)
        resource.prlimit(server.process.pid, resource.RLIMIT_AS, (unbounded, unbounded))
        assert load_model(server, "m", model).status == 200


def test_soak(images, ahi, tmp_path):
    size = {name: int(os.environ.get(f"SOAK_{name}", default))
            for name, default in [("MODELS", 10), ("TIMES", 4), ("CLIENTS", 8)]}
    with multi_model(ahi.address, LOG_LEVEL="error") as server:
        problems, before, after = soak(
            server, images, tmp_path, size["MODELS"], size["TIMES"], size["CLIENTS"]
        )
    assert not problems
    # After so few loads, allocators are still settling; the full test holds memory to 10 %.
    assert after < before * 1.25


def test_load(images, ahi, tmp_path):
    model = tiny.bundle(tmp_path / "model", 5)
    with serve(model, ahi.address) as server:
        statuses, problems = load(server, images.request, 60, 16)
        assert not problems and statuses == {200: 60}
        seen = series(server)
        assert seen[("ahi_inference_requests_total", "/invocations", "200", "POST")] == 61
        assert seen[("ahi_inference_stage_seconds_count", "inference")] == 61
        assert seen[("ahi_inference_ahi_calls_total", "GetImageFrame")] == 61 * 12
        assert seen[("ahi_inference_frames_total",)] == 61 * 12
    with serve(model, ahi.address, "--queue", 2) as server:
        statuses, problems = load(server, images.request, 60, 16)
        assert not problems and statuses[200] >= 4 and statuses[200] + statuses[503] == 60
    server = serve(model, ahi.address)
    assert not load_and_stop(server, images.request, 20, 16)


def test_deadlines_name_the_other_way(images, ahi, tmp_path):
    with multi_model(ahi.address, "--request-timeout", "0.001") as server:
        tiny.bundle(tmp_path / "m", 1)
        # Loading has the platform's time limit, not a request's.
        assert load_model(server, "m", tmp_path / "m").status == 200
        late = ask(server.address, "POST", "/models/m/invoke", images.request)
        assert (late.status, late.code) == (504, "deadline_exceeded")
        assert "asynchronous" in late.json()["error"]["message"]


def test_several_models_in_a_folder(images, ahi, tmp_path):
    for number, name in enumerate(["lung", "spleen"]):
        tiny.bundle(tmp_path / name, number)
    with serve(tmp_path, ahi.address) as server:
        for number, name in enumerate(["lung", "spleen"]):
            for headers, body in [
                ({"X-Amzn-SageMaker-Target-Model": name}, {}),
                ({"X-Amzn-SageMaker-Target-Model": f"{name}.tar.gz"}, {"model": name}),
                ({"X-Amzn-SageMaker-Custom-Attributes": f"trace=7,model={name}"}, {}),
                ({}, {"model": name}),
            ]:
                answer = ask(server.address, "POST", "/invocations", images.request | body, **headers)
                assert answer.status == 200, answer.body
                assert tiny.check(answer.json(), images, number) is None
        unknown = ask(server.address, "POST", "/invocations", images.request | {"model": "liver"})
        assert (unknown.status, unknown.code) == (404, "model_not_found")
        assert unknown.json()["error"]["details"]["models"] == ["lung", "spleen"]
        nameless = ask(server.address, "POST", "/invocations", images.request)
        assert (nameless.status, nameless.code) == (400, "invalid_request")
        info = ask(server.address, "GET", "/info").json()
        assert [(m["name"], m["state"], m["segments"]) for m in info["models"]] == [
            ("lung", "ready", ["Model 0"]), ("spleen", "ready", ["Model 1"]),
        ]


def test_description_is_valid(ahi):
    with multi_model(ahi.address) as server:
        document = ask(server.address, "GET", "/openapi.json").json()
    OpenAPIV31SpecValidator(document).validate()
    assert "/models/{name}/invoke" in document["paths"]


def test_every_line_about_a_request_names_it(images, ahi, tmp_path):
    tiny.bundle(tmp_path / "m", 1)
    with multi_model(ahi.address, LOG_LEVEL="trace") as server:
        identifier = {"X-Amzn-SageMaker-Inference-Id": "study-7"}
        assert load_model(server, "m", tmp_path / "m").status == 200
        # A separate thread reads the log: the lines about loading must be there before they can be left out.
        until = time.monotonic() + 10
        while not any('"model ready"' in line for line in server.log) and time.monotonic() < until:
            time.sleep(0.05)
        mark = len(server.log)
        answer = ask(server.address, "POST", "/models/m/invoke", images.request, **identifier)
        assert answer.status == 200
        time.sleep(0.3)
        lines = [json.loads(line) for line in server.log[mark:]]
    assert len(lines) > 10
    ours = {"request_id": answer.headers["x-request-id"], "inference_id": "study-7"}
    for line in lines:
        if line["target"].startswith("ahi_inference") and line.get("signal") is None and \
                line["message"] not in ("draining", "stopped"):
            assert {k: line.get("span", {}).get(k) for k in ours} == ours, line
