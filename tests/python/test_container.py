"""The image in a Docker engine: what SageMaker and an operator see of it.

The image is TEST_IMAGE if that is set, as in the build pipeline; otherwise one is built with the program under
test (scripts/build-image.sh). Skipped if no Docker engine answers.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import uuid

import pytest

from local import BINARY, ROOT, get, import_dicom, run

MODEL = ROOT / "model/ct_phantom"
# As an operator who trusts nothing would run it.
USER = "10001:10001"
LOCKED = ("--user", USER, "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
KEYS = ("-e", "AWS_ACCESS_KEY_ID=test", "-e", "AWS_SECRET_ACCESS_KEY=test", "-e", "AWS_REGION=us-east-1")


def docker(*arguments, check=True):
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip() if check else done


def build(tag, **environment):
    if docker("pull", "--quiet", "debian:bookworm-slim", check=False).returncode != 0:
        environment["LOCAL_BASES"] = "1"
    script = ROOT / "scripts/build-image.sh"
    done = subprocess.run([script, "cpu", tag], env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def engine():
    if not shutil.which("docker"):
        pytest.skip("there is no docker command")
    answer = docker("version", check=False)
    if answer.returncode != 0:
        pytest.skip(f"no Docker engine answers: {answer.stderr.strip()}")


@pytest.fixture(scope="module")
def image(engine):
    if given := os.environ.get("TEST_IMAGE"):
        return given
    tag = "ahi-inference:test"
    build(tag, PROGRAM=str(BINARY))
    # A program built on a newer system than the image's does not start in it.
    if docker("run", "--rm", tag, "--version", check=False).returncode != 0:
        build(tag)
    return tag


class Containers:
    """Containers on their own network; removed at the end."""

    def __init__(self):
        self.network = f"test-{uuid.uuid4().hex[:8]}"
        self.started = []
        docker("network", "create", self.network)

    def start(self, name, *arguments):
        self.started.append(docker("run", "--detach", "--network", self.network, "--network-alias", name, *arguments))
        return self.started[-1]

    def remove(self):
        for container in self.started:
            docker("rm", "--force", container)
        docker("network", "rm", self.network)


@pytest.fixture
def containers(engine):
    made = Containers()
    yield made
    made.remove()


def address(container, port=8080):
    return f"http://{docker('port', container, f'{port}/tcp').splitlines()[0]}"


def wait_until_ready(url, container, seconds=60):
    """Seconds until /ping answers 200."""
    started = time.monotonic()
    while get(f"{url}/ping")[0] != 200:
        assert time.monotonic() - started < seconds, docker("logs", container, check=False).stderr
        time.sleep(0.05)
    return time.monotonic() - started


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A phantom's folder, a store with it, and the request for it."""
    folder = tmp_path_factory.mktemp("container")
    run("phantom", "--out", folder / "phantom")
    request = import_dicom(folder / "phantom/dicom", folder / "store")
    return folder / "phantom", folder / "store", request


def emulate(containers, image, store, *flags):
    # As the owner of the folder that the test created: root, but without capabilities.
    container = containers.start(
        "emulator", *LOCKED, "--user", f"{os.getuid()}:{os.getgid()}", "-v", f"{store}:/store", image,
        "emulate", "--folder", "/store", "--host", "0.0.0.0", "--port", 8089, *flags,
    )
    # A request that comes before the emulator listens would be refused, so this waits.
    for _ in range(600):
        logs = docker("logs", container, check=False)
        if "listening on" in logs.stdout:
            return
        time.sleep(0.05)
    pytest.fail(f"the local HealthImaging did not start: {logs.stdout}{logs.stderr}")


def serve(containers, image, *flags):
    container = containers.start(
        "server", *LOCKED, *KEYS, "-e", "AHI_ENDPOINT_URL=http://emulator:8089", "-v", f"{MODEL}:/opt/ml/model:ro",
        "-p", "127.0.0.1::8080", *flags, image, "serve",
    )
    return container, address(container)


def curl(url, request, target):
    """Sends the request of docs/deployment.md; returns the HTTP status."""
    command = [
        "curl", "-s", f"{url}/invocations", "-H", "Content-Type: application/json", "-H", "Accept: application/dicom",
        "-d", json.dumps({"inputs": [request]}), "-o", target, "-w", "%{http_code}",
    ]
    return subprocess.run(command, capture_output=True, text=True).stdout


def assert_segmented(segmentation, phantom):
    dice = [sys.executable, ROOT / "scripts/dice.py", segmentation, phantom, "--least", "0.9"]
    done = subprocess.run(dice, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_what_sagemaker_wants(image):
    about = json.loads(docker("image", "inspect", image))[0]
    config = about["Config"]
    print(f"{image}: {about['Size'] / 1e6:.0f} MB")
    # The program itself, without a shell in between; its argument is SageMaker's `serve`.
    assert config["Entrypoint"] == ["/usr/local/bin/ahi-inference"] and config["Cmd"] == ["serve"]
    for capability in ("accept-bind-to-port", "multi-models"):
        assert config["Labels"][f"com.amazonaws.sagemaker.capabilities.{capability}"] == "true"
    # SageMaker expects root.
    assert config["User"] == "0:0"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert about["Size"] < 260e6


def users(container):
    """The user of each process in a container."""
    return [line.split()[0] for line in docker("top", container, "-eo", "uid,pid,comm").splitlines()[1:]]


def test_it_runs_as_sagemaker_starts_it(image, containers, phantom, tmp_path):
    folder, store, request = phantom
    emulate(containers, image, store)
    # No user, no limits; only root can read the model's folder, as may happen with an archive.
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    mount = ("-v", f"{model}:/opt/ml/model:ro")
    container = containers.start(
        "server", "-e", "AHI_ENDPOINT_URL=http://emulator:8089", *KEYS, "-p", "127.0.0.1::8080", *mount, image, "serve",
    )
    url = address(container)
    wait_until_ready(url, container)
    assert users(container) == ["0"]
    assert curl(url, request, tmp_path / "seg.dcm") == "200", (tmp_path / "seg.dcm").read_bytes()[:4000]
    assert_segmented(tmp_path / "seg.dcm", folder)
    docker("stop", "-t", 30, container)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def test_a_request_from_start_to_sigterm(image, containers, phantom, tmp_path):
    folder, store, request = phantom
    emulate(containers, image, store)
    container, url = serve(containers, image)
    print(f"/ping after {wait_until_ready(url, container):.2f} s")
    status = curl(url, request, tmp_path / "seg.dcm")
    assert status == "200", (tmp_path / "seg.dcm").read_bytes()[:4000]
    assert_segmented(tmp_path / "seg.dcm", folder)

    # The first process is the server, and it does not run as root.
    assert users(container) == ["10001"]
    # It did all this with only /tmp writable.
    assert docker("inspect", "--format", "{{.HostConfig.ReadonlyRootfs}}", container) == "true"

    started = time.monotonic()
    docker("stop", "-t", 30, container)
    print(f"stopped after {time.monotonic() - started:.2f} s")
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def test_sigterm_lets_what_runs_finish(image, containers, phantom, tmp_path):
    folder, store, request = phantom
    # Throttled, so that fetching 120 frames takes seconds.
    emulate(containers, image, store, "--frames-per-second", 40)
    container, url = serve(containers, image)
    wait_until_ready(url, container)
    statuses = []
    asking = threading.Thread(target=lambda: statuses.append(curl(url, request, tmp_path / "seg.dcm")))
    asking.start()
    time.sleep(1)
    assert asking.is_alive(), f"the request was done too soon: {statuses}"
    started = time.monotonic()
    docker("stop", "-t", 30, container)
    print(f"stopped after {time.monotonic() - started:.2f} s")
    asking.join()
    assert statuses == ["200"]
    assert_segmented(tmp_path / "seg.dcm", folder)
    # Not 137, which would be SIGKILL.
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0"


def test_health_follows_the_port_that_the_platform_names(image, containers):
    flags = ("--health-interval", "1s", "-e", "SAGEMAKER_BIND_TO_PORT=9090", "-p", "127.0.0.1::9090")
    container, _ = serve(containers, image, *flags)
    wait_until_ready(address(container, 9090), container)
    for _ in range(300):
        health = docker("inspect", "--format", "{{.State.Health.Status}}", container)
        if health == "healthy":
            break
        time.sleep(0.1)
    assert health == "healthy"


def test_without_a_model_it_is_unhealthy_and_says_why(image, containers, tmp_path):
    container = containers.start("empty", *LOCKED, *KEYS, "-v", f"{tmp_path}:/opt/ml/model:ro", image, "serve")
    # Either it exits, or it stays up but is never ready: no platform takes it for healthy.
    time.sleep(1)
    asked = docker("exec", container, "/usr/local/bin/ahi-inference", "ping", check=False)
    assert asked.returncode != 0
    logs = docker("logs", container, check=False)
    assert "/opt/ml/model" in logs.stdout + logs.stderr


@pytest.mark.skipif("TEST_CUDA_IMAGE" not in os.environ, reason="TEST_CUDA_IMAGE names no image of the cuda flavour")
def test_cuda_flavour_never_runs_on_the_cpu_unasked(engine, containers):
    image = os.environ["TEST_CUDA_IMAGE"]
    config = json.loads(docker("image", "inspect", image))[0]["Config"]
    assert "EXECUTION_PROVIDERS=cuda" in config["Env"]
    listed = docker("run", "--rm", "--entrypoint", "/bin/ls", image, "/opt/onnxruntime/lib")
    assert "libonnxruntime_providers_cuda.so" in listed
    # This container gets no GPU.
    container, url = serve(containers, image)
    for _ in range(100):
        logs = docker("logs", container, check=False)
        if "cuda" in (logs.stdout + logs.stderr).lower():
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"no word of CUDA in {logs.stdout}{logs.stderr}")
    assert get(f"{url}/ping")[0] != 200
