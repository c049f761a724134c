"""The program's processes, the local HealthImaging and the server, for tests with real clients."""

import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("AHI_INFERENCE_BIN", ROOT / "target/release/ahi-inference"))
SHARED = Path(os.environ.get("AHI_SHARED", ROOT / "../shared")).resolve()
os.environ.setdefault("ORT_DYLIB_PATH", str(ROOT / "target/onnxruntime/lib/libonnxruntime.so"))
# The variable that names the program for the tests is not one of its settings, and it refuses unknown ones.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "AHI_INFERENCE_BIN"}
LISTENING = re.compile(r"listening on (http://\S+)")


class Program:
    """A subcommand that prints where it listens; stopped at the end of a `with` block."""

    def __init__(self, *arguments, before=None, **environment):
        """`before` is called in the new process before it becomes the program."""
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}
        self.process = subprocess.Popen(
            [BINARY, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=ENVIRONMENT | keys | environment, preexec_fn=before,
        )
        for line in self.process.stdout:
            if found := LISTENING.search(line):
                self.address = found.group(1).replace("0.0.0.0", "127.0.0.1")
                break
        else:
            raise RuntimeError(f"{arguments[0]} did not start: {self.process.stderr.read()}")
        self.log = []
        import threading
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def next_address(self):
        """Another address that it listens on, from its next line."""
        return LISTENING.search(self.process.stdout.readline()).group(1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(40)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*arguments):
    """Runs a subcommand to completion and returns its output."""
    done = subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def emulate(folder, *flags, **environment):
    return Program("emulate", "--folder", folder, "--port", 0, "--s3-port", 0, *flags, **environment)


def serve(model, endpoint, *flags, port=0, before=None, **environment):
    server = Program(
        "serve", "--model", model, "--port", port, "--host", "127.0.0.1", *flags, before=before,
        AHI_ENDPOINT_URL=endpoint, **environment,
    )
    for _ in range(600):
        status, _, _ = get(f"{server.address}/ping")
        if status == 200:
            return server
        if server.process.poll() is not None:
            break
        time.sleep(0.1)
    server.__exit__()
    raise RuntimeError(f"the server did not become ready: {''.join(server.log)}")


def multi_model(endpoint, *flags, port=0, **environment):
    """A multi-model server, which is healthy without a model."""
    # Tests create their models in temporary folders; the demo's is in the checkout.
    roots = {"MODEL_ROOTS": f"{tempfile.gettempdir()}:{ROOT}"}
    server = Program(
        "serve", "--port", port, "--host", "127.0.0.1", *flags,
        AHI_ENDPOINT_URL=endpoint, SAGEMAKER_MULTI_MODEL="true", **roots | environment,
    )
    for _ in range(100):
        if get(f"{server.address}/ping")[0] == 200:
            return server
        time.sleep(0.05)
    server.__exit__()
    raise RuntimeError(f"the server did not become ready: {''.join(server.log)}")


def open_url(request):
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()
    except OSError:
        # Nothing listens, or the connection was closed.
        return 0, {}, b""


def get(url):
    return open_url(urllib.request.Request(url))


def post(url, body, **headers):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    named = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
    return open_url(urllib.request.Request(f"{url}/invocations", body, named))


def import_dicom(source, store):
    """Imports `source` and returns the request body for the first image set."""
    made = json.loads(run("import", source, "--folder", store))
    assert not made["failures"], made["failures"]
    return {"datastoreId": made["datastoreId"], "imageSetId": made["imageSets"][0]["imageSetId"]}


def find_files(store, predicate):
    return [path for path in Path(store).rglob("*") if path.is_file() and predicate(path)]


def edit_metadata(store, request, change):
    """Applies `change` to the stored metadata document of an image set."""
    for path in find_files(store, lambda p: request["imageSetId"] in str(p)):
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            document = json.loads(gzip.decompress(raw))
            if "Study" in document:
                change(document)
                path.write_bytes(gzip.compress(json.dumps(document).encode()))
                return
    raise AssertionError("no metadata found")


def frames_of(document):
    for series in document["Study"]["Series"].values():
        for uid, instance in series["Instances"].items():
            for frame in instance["ImageFrames"]:
                yield uid, instance, frame


def copy_store(store, target):
    shutil.copytree(store, target)
    return target
