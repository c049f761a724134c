"""Times whole requests: see scripts/bench.sh, which calls this."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path


def start(command, environment, pattern):
    """Starts a program and waits for the address it prints."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        found = re.search(pattern, line)
        if found:
            return process, found.group(1)
    raise SystemExit(f"{' '.join(map(str, command))} ended with {process.wait()}")


def peak_mebibytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1024


def ask(address, body, accept):
    request = urllib.request.Request(
        f"{address}/invocations", body, {"Content-Type": "application/json", "Accept": accept}
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request) as answer:
        content = answer.read()
    return time.perf_counter() - started, content


def bytes_alone(program, endpoint, image_set, environment, runs):
    """Medians of fetching frames with and without decoding them, alternating in one process."""
    command = [program, endpoint, image_set["datastoreId"], image_set["imageSetId"], str(runs)]
    return json.loads(subprocess.check_output(list(map(str, command)), env=environment))


def describe_fetching(found):
    """Lines that describe the results of `bytes_alone`."""
    steps = ", ".join(f"{step} {1000 * seconds:.2f}" for step, seconds in found["perFrame"].items())
    yield (f"{found['frames']} frames, {found['encodedBytes'] / 1e6:.1f} MB: bytes alone {found['bytesAlone']:.3f} s, "
           f"fetched and decoded {found['fetchAndDecode']:.3f} s, ratio {found['ratio']:.2f}")
    yield f"of each frame, in ms: {steps}"


def main(binary, source, model, work, runs, fetch):
    store = Path(work) / "store"
    made = json.loads(subprocess.check_output([binary, "import", source, "--folder", store], stderr=subprocess.DEVNULL))
    image_set = made["imageSets"][0]
    body = json.dumps({"datastoreId": made["datastoreId"], "imageSetId": image_set["imageSetId"]}).encode()
    listening = r"listening on (http://\S+)"
    emulator, endpoint = start([binary, "emulate", "--folder", store, "--port", "0", "--s3-port", "0"], os.environ, listening)
    environment = os.environ | {
        "AHI_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_REGION": "us-east-1",
    }
    server = None
    serve = [binary, "serve", "--port", "0", "--host", "127.0.0.1"]
    try:
        print(f"start to /ping, without a model: median {1000 * start_time(serve, environment, listening):.0f} ms of 9")
        launched = time.perf_counter()
        server, address = start([*serve, "--model", model], environment, listening)
        wait_until_ready(address)
        print(f"start to /ping, with the model loaded and run once: {time.perf_counter() - launched:.2f} s")
        walls, stages = [], []
        for run in range(int(runs) + 1):
            wall, content = ask(address, body, "application/json")
            if run > 0:
                walls.append(wall)
                stages.append(json.loads(content)["results"][0])
        report(image_set, walls, stages, peak_mebibytes(server.pid))
        named = {"datastoreId": made["datastoreId"], "imageSetId": image_set["imageSetId"]}
        for line in describe_fetching(bytes_alone(fetch, endpoint, named, environment, max(3, int(runs)))):
            print(line)
    finally:
        for process in filter(None, (server, emulator)):
            process.terminate()
            process.wait()


def start_time(serve, environment, listening):
    """Seconds from the start of a server without a model to its first answer."""
    taken = []
    for _ in range(9):
        began = time.perf_counter()
        process, address = start(serve, environment | {"SAGEMAKER_MULTI_MODEL": "true"}, listening)
        wait_until_ready(address)
        taken.append(time.perf_counter() - began)
        process.terminate()
        process.wait()
    return statistics.median(taken)


def wait_until_ready(address):
    said = b""
    for _ in range(6000):
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=2)
            return
        except urllib.error.HTTPError as error:
            said = error.read()
        except OSError:
            pass
        time.sleep(0.01)
    raise SystemExit(f"the server did not become ready: {said.decode()}")


def report(image_set, walls, results, peak):
    def median(name):
        return statistics.median(result["timings"].get(name, 0.0) for result in results)

    geometry = results[0]["geometry"]
    shape = " x ".join(map(str, geometry["dimensions"]))
    network_shape = " x ".join(map(str, geometry["networkDimensions"]))
    print(f"{image_set['frames']} frames, {shape} voxels, {network_shape} for the network, "
          f"{results[0]['windows']} windows; median of {len(walls)} requests")
    inference, network, postprocess = median("inference"), median("network"), median("postprocess")
    for name in ("metadata", "frames", "preprocess"):
        print(f"  {name:<24}{median(name):8.3f} s")
    print(f"  {'network':<24}{network:8.3f} s")
    overlapped = statistics.median(
        max(0.0, r["timings"]["inference"] - r["timings"]["network"]) for r in results
    )
    print(f"  {'windows, blending':<24}{max(0.0, overlapped - postprocess):8.3f} s")
    print(f"  {'postprocess':<24}{postprocess:8.3f} s")
    print(f"  {'write':<24}{median('write'):8.3f} s")
    wall = statistics.median(walls)
    print(f"  {'whole request':<24}{wall:8.3f} s (min {min(walls):.3f}, max {max(walls):.3f})")
    print(f"  peak memory of the server {peak:.0f} MiB")
    print(f"whole request / network alone: {wall / network:.2f}")
    assert inference >= network


if __name__ == "__main__":
    main(*sys.argv[1:])
