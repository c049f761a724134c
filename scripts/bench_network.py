"""Times the network with each CPU provider, request by request in turn: see scripts/bench.sh, which calls this.

    python scripts/bench_network.py BINARY DICOM MODEL WORK [RUNS]

Prints, for the default provider, ONNX Runtime's own kernels and, if the CPU has instructions for it, bf16: the
median time inside the network, that of the whole request, and the share of equal labels. Then come four concurrent
requests compared with one, loading on a multi-model endpoint, the time from the start of the process to its first
answer, and the memory of two models and four requests compared with what the server's budget allows.
"""

import base64
import concurrent.futures
import gzip
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

from bench import peak_mebibytes, start, wait_until_ready

LISTENING = r"listening on (http://\S+)"
PROVIDERS = {
    "default": {},
    "own kernels": {"EXECUTION_PROVIDERS": "cpu"},
    "bf16": {"CPU_PRECISION": "bf16"},
}


def ask(address, request, path="/invocations", method="POST"):
    """Sends a request; returns the seconds and the answer."""
    body = None if request is None else json.dumps(request).encode()
    started = time.perf_counter()
    wanted = urllib.request.Request(address + path, body, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(wanted) as answer:
        content = answer.read()
    return time.perf_counter() - started, json.loads(content) if content.startswith(b"{") else None


def labels(result):
    """The voxels of a NIfTI file, after its header of 352 bytes."""
    [output] = result["outputs"]
    return gzip.decompress(base64.b64decode(output["data"]))[352:]


def loaded(address):
    """Waits for a server's model; returns whether it could be loaded."""
    while True:
        models = json.loads(urllib.request.urlopen(f"{address}/info").read())["models"]
        if models and models[0]["state"] != "loading":
            return models[0]["state"] == "ready"
        time.sleep(0.05)


def resident(pid, field="VmRSS"):
    return int(re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


class Bench:
    def __init__(self, binary, source, model, work, runs):
        self.binary, self.model, self.runs = binary, Path(model).resolve(), int(runs)
        self.work = Path(work)
        store = self.work / "network-store"
        made = subprocess.check_output([binary, "import", source, "--folder", store], stderr=subprocess.DEVNULL)
        made = json.loads(made)
        self.request = {"datastoreId": made["datastoreId"], "imageSetId": made["imageSets"][0]["imageSetId"]}
        self.processes = []
        endpoint = self.begin(["emulate", "--folder", store, "--port", "0", "--s3-port", "0"], {})[1]
        self.environment = {
            "AHI_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_REGION": "us-east-1", "MODEL_CACHE_DIR": str(self.work / "cache"),
            "MAX_INLINE_BYTES": str(1 << 30),
        }

    def begin(self, arguments, environment):
        process, address = start([self.binary, *arguments], os.environ | environment, LISTENING)
        self.processes.append(process)
        return process, address

    def serve(self, more, *arguments):
        arguments = ["serve", "--port", "0", "--host", "127.0.0.1", *arguments]
        return self.begin(arguments, self.environment | more)

    def end(self, *processes):
        for process in processes or self.processes:
            process.terminate()
            process.wait()

    def providers(self):
        """Requests to one server per provider, in turn."""
        servers = {}
        for name, more in PROVIDERS.items():
            process, address = self.serve(more, "--model", self.model)
            if loaded(address):
                servers[name] = (process, address)
            else:
                print(f"{name}: cannot be used on this machine")
                self.end(process)
        found = {name: [] for name in servers}
        request = self.request | {"outputs": ["nifti"]}
        maps = {}
        for run in range(self.runs + 1):
            for name, (_, address) in servers.items():
                wall, answer = ask(address, request)
                [result] = answer["results"]
                if run > 0:
                    found[name].append((result["timings"]["network"], wall))
                maps[name] = labels(result)
                if run == 0:
                    runs_on = {key: result.get(key) for key in (
                        "executionProvider", "cpuPrecision", "windowsSideBySide", "windowsPerRun")}
                    print(f"{name}: {runs_on}, {result['windows']} windows")
        network = {name: statistics.median(t for t, _ in times) for name, times in found.items()}
        for name, times in found.items():
            wall = statistics.median(wall for _, wall in times)
            equal = sum(map(int.__eq__, maps[name], maps["own kernels"])) / len(maps[name])
            print(f"{name:<12} network {network[name]:7.3f} s, {network[name] / network['own kernels']:.3f} of own kernels; "
                  f"whole request {wall:7.3f} s, {wall / network[name]:.3f} of the network; labels equal to own kernels' "
                  f"{equal:.6%}", flush=True)
        self.end(*(process for name, (process, _) in servers.items() if name != "default"))
        self.at_once(servers["default"][1])
        self.end(servers["default"][0])

    def at_once(self, address):
        ratios = []
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for _ in range(self.runs):
                one = ask(address, self.request)[0]
                began = time.perf_counter()
                list(pool.map(lambda _: ask(address, self.request), range(4)))
                ratios.append((time.perf_counter() - began) / one)
        print(f"four requests at once / one: {statistics.median(ratios):.2f} (of {self.runs})", flush=True)

    def loading(self):
        """Loading one model, with and without cached knowledge about it."""
        size = (self.model / "models/model.onnx").stat().st_size / 1e6
        for state in ("not known", "known"):
            process, address = self.serve({"SAGEMAKER_MULTI_MODEL": "true", "MODEL_ROOTS": str(self.model.parent),
                                           "MODEL_CACHE_DIR": str(self.work / "cache-loading")})
            wait_until_ready(address)
            load = lambda name: ask(address, {"model_name": name, "url": str(self.model)}, "/models")[0]
            first = load("first")
            seconds = [first]
            for number in range(self.runs):
                ask(address, None, "/models/first" if number == 0 else f"/models/again{number - 1}", "DELETE")
                seconds.append(load(f"again{number}"))
            print(f"POST /models of {size:.0f} MB in a new process, {state}: {first:.3f} s; "
                  f"again in the same process: median {statistics.median(seconds[1:]):.3f} s", flush=True)
            self.end(process)
        launched = time.perf_counter()
        process, address = self.serve({}, "--model", self.model)
        wait_until_ready(address)
        ready = time.perf_counter() - launched
        ask(address, self.request)
        print(f"start to ready {ready:.3f} s, to the first answer {time.perf_counter() - launched:.3f} s, model known")
        self.end(process)

    def memory(self):
        """Two models and four requests in a server whose memory budget has room for few of them."""
        allowed = 3 << 30
        process, address = self.serve({
            "SAGEMAKER_MULTI_MODEL": "true", "MODEL_ROOTS": str(self.model.parent), "WORK_MEMORY_BYTES": str(allowed),
            "MEMORY_BUDGET_BYTES": str(allowed // 2)})
        wait_until_ready(address)
        base = resident(process.pid)
        for name in ("one", "two"):
            ask(address, {"model_name": name, "url": str(self.model)}, "/models")
        models = json.loads(urllib.request.urlopen(f"{address}/info").read())["models"]
        charged = sum(model["bytes"] for model in models) / 2**20
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                list(pool.map(lambda name: ask(address, self.request, f"/models/{name}/invoke"), ["one", "two"] * 2))
        peak = peak_mebibytes(process.pid)
        print(f"memory: {base:.0f} MiB without a model; two models are charged {charged:.0f} MiB; peak of four requests at "
              f"once {peak:.0f} MiB, so {peak - base:.0f} of the {allowed >> 20} MiB that the account allows beside "
              f"bodies and inputs")
        self.end(process)
        assert peak - base <= allowed >> 20, "more memory than the account has"


def main(binary, source, model, work, runs="5"):
    bench = Bench(binary, source, model, work, runs)
    try:
        bench.providers()
        bench.loading()
        bench.memory()
    finally:
        bench.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
