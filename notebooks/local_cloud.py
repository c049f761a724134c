"""HealthImaging, S3 and SageMaker's endpoints on this machine, for the notebooks.

    cloud = LocalCloud("ct-models", "ct")

starts the emulator of docs/local-cloud.md and a server behind each endpoint that is named, and points boto3 at them.
They end with the kernel, or when another LocalCloud is made. The buckets `models` and `data` are there.
"""

import atexit
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(os.environ.get("AHI_INFERENCE_BIN", ROOT / "target/release/ahi-inference"))
MODEL = ROOT / "model/ct_phantom"
LISTENING = re.compile(r"listening on (http://\S+)")

# Nobody checks these, and real ones must not get here.
KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
REAL = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")

# Endpoint: the server behind it, and how the runtime treats it. Two endpoints share a server.
ENDPOINTS = {
    "ct-models": ("models", {"multiModel": {"s3Prefix": "s3://models/ct/"}}),
    "ct": ("ct", {}),
    "ct-async": ("ct", {"async": {"s3OutputPath": "s3://data/results/reports", "s3FailurePath": "s3://data/results/failures",
                                  "maxConcurrentInvocationsPerInstance": 2}}),
}


def program(*arguments, check=True):
    """Runs a subcommand of ahi-inference and returns what it prints."""
    done = subprocess.run([_found(), *map(str, arguments)], capture_output=True, text=True, env=_environment())
    if check and done.returncode != 0:
        raise RuntimeError(f"ahi-inference {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def make_phantom(folder, seed=2024, size=96, slices=64):
    """Writes a synthetic CT and returns the folder of its DICOM files."""
    program("phantom", "--out", folder, "--seed", seed, "--size", size, "--slices", slices)
    return Path(folder) / "dicom"


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LocalCloud:
    """The programs of a local cloud, and a folder for what they keep. There is one at a time in a kernel."""

    _current = None

    def __init__(self, *endpoints):
        if unknown := set(endpoints) - set(ENDPOINTS):
            raise ValueError(f"there is no endpoint {', '.join(sorted(unknown))}; there are {', '.join(ENDPOINTS)}")
        _found()
        if LocalCloud._current:
            LocalCloud._current.stop()
        LocalCloud._current = self
        self.folder = Path(tempfile.mkdtemp(prefix="ahi-inference-"))
        self._processes = []
        try:
            self._start(endpoints)
        except BaseException:
            self.stop()
            raise

    def _start(self, endpoints):
        store = self.folder / "store"
        for bucket in ("models", "data"):
            (store / "s3" / bucket).mkdir(parents=True)
        ports = {ENDPOINTS[name][0]: free_port() for name in endpoints}
        (self.folder / "endpoints.json").write_text(json.dumps({
            name: {"url": f"http://127.0.0.1:{ports[server]}"} | rest
            for name, (server, rest) in ENDPOINTS.items() if name in endpoints
        }))
        flags = ["--endpoints", self.folder / "endpoints.json", "--sagemaker-port", 0] if endpoints else []
        emulator = self._run("emulate", {}, "--folder", store, "--port", 0, "--s3-port", 0, *flags)
        self.healthimaging_url, s3, *sagemaker = (self._address(emulator) for _ in range(3 if endpoints else 2))
        _point_boto3_at(self.healthimaging_url, s3, *sagemaker)
        settings = {"AHI_ENDPOINT_URL": self.healthimaging_url, "S3_ENDPOINT_URL": s3, "S3_PATH_STYLE": "true"}
        kinds = {"ct": ({}, ["--model", MODEL]), "models": ({"SAGEMAKER_MULTI_MODEL": "true", "MODEL_ROOTS": str(store)}, [])}
        # All at once, and then each is waited for.
        servers = {}
        for name, port in ports.items():
            more, flags = kinds[name]
            servers[port] = self._run("serve", settings | more, "--host", "127.0.0.1", "--port", port, *flags)
        for port, server in servers.items():
            self._until_ready(port, server)

    def healthimaging(self):
        """A client of HealthImaging. boto3 would put `runtime-` before the host, which an address here cannot have."""
        import boto3
        from botocore.config import Config

        return boto3.client("medical-imaging", config=Config(inject_host_prefix=False))

    def import_phantoms(self, *seeds):
        """Imports synthetic CTs; returns the ID of their data store and those of their image sets."""
        store, into, image_sets = None, [], []
        for seed in seeds:
            dicom = make_phantom(self.folder / f"phantom-{seed}", seed)
            made = json.loads(program("import", dicom, "--folder", self.folder / "store", *into))
            store = made["datastoreId"]
            into = ["--datastore", store]
            image_sets.append(made["imageSets"][0]["imageSetId"])
        return store, image_sets

    def stop(self):
        """Ends the programs and removes what they kept."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        if LocalCloud._current is self:
            LocalCloud._current = None

    def _run(self, command, settings, *arguments):
        log = self.folder / f"{command}-{len(self._processes)}.log"
        with log.open("w") as errors:
            # Only what says where it listens on ports of its own choice is read.
            process = subprocess.Popen(
                [_found(), command, *map(str, arguments)], stdin=subprocess.DEVNULL, text=True, stderr=errors,
                stdout=subprocess.PIPE if command == "emulate" else errors, env=_environment() | KEYS | settings)
        process.log = log
        # At its end a kernel signals its children until none is left, and one that nobody has waited for counts.
        threading.Thread(target=process.wait, daemon=True).start()
        self._processes.append(process)
        return process

    def _address(self, process):
        """Where a program says on its next line that it listens."""
        for line in process.stdout:
            if found := LISTENING.search(line):
                return found.group(1)
        raise RuntimeError(f"the local cloud did not start: {process.log.read_text()[-2000:]}")

    def _until_ready(self, port, process, seconds=180):
        end = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError(f"a server did not start: {process.log.read_text()[-2000:]}")


@atexit.register
def _stop():
    if LocalCloud._current:
        LocalCloud._current.stop()


def _found():
    if not PROGRAM.is_file():
        raise FileNotFoundError(f"{PROGRAM} is not there; run scripts/notebooks.sh, or cargo build --release")
    return PROGRAM


def _environment():
    """What programs are started with: nothing of a real account, and no variable that is none of their settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "AHI_", "S3_", "SAGEMAKER_"))}
    library = ROOT / "target/onnxruntime/lib/libonnxruntime.so"
    return {"ORT_DYLIB_PATH": str(library)} | kept if library.is_file() else kept


def _point_boto3_at(healthimaging, s3, sagemaker=None):
    import boto3

    for name in REAL:
        os.environ.pop(name, None)
    os.environ.update(KEYS, AWS_ENDPOINT_URL_MEDICAL_IMAGING=healthimaging, AWS_ENDPOINT_URL_S3=s3)
    if sagemaker:
        os.environ["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = sagemaker
    # Clients are made of a session that may have read the environment before.
    boto3.setup_default_session()
