"""The whole request on a GPU: see scripts/bench-gpu.sh, which calls this."""

import argparse
import base64
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from compare import ROOT, SHARED, Case, Ours, phantom, table  # noqa: E402

# How the network runs: the settings in serving.json, and the lowest acceptable share of labels equal to the CPU's.
FORMS = {
    "FP32": ({}, 0.9999),
    "TF32": ({"tf32": True}, 0.999),
    "FP16": ({"gpuModel": "model_fp16.onnx"}, 0.999),
    "FP16 twice": ({"gpuModel": "model_fp16.onnx", "sessionsPerGpu": 2}, 0.999),
}
TENSORRT = {"FP32": ({}, 0.999), "FP16": ({"tensorrtFp16": True}, 0.999)}


def package(model, work, name, execution):
    """A copy of the bundle with `execution` in its serving.json."""
    folder = work / f"bundle-{name.replace(' ', '-')}"
    shutil.copytree(model, folder)
    if "gpuModel" in execution:
        subprocess.check_call([sys.executable, ROOT / "model/convert_fp16.py", folder, "--runs", "1"])
    serving = folder / "serving.json"
    settings = json.loads(serving.read_text()) if serving.exists() else {}
    serving.write_text(json.dumps(settings | {"execution": execution}))
    return folder


def labels(ours):
    """The label map of a request, from its NIfTI output."""
    body = json.dumps({"inputs": [json.loads(ours.body)], "outputs": ["nifti"]}).encode()
    request = urllib.request.Request(f"{ours.address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        [output] = json.load(answer)["results"][0]["outputs"]
    content = gzip.decompress(base64.b64decode(output["data"]))
    offset = int(np.frombuffer(content[108:112], "<f4")[0])
    return np.frombuffer(content[offset:], np.uint8)


class Busy:
    """Share of the time in which the GPU was busy, as sampled by nvidia-smi; None without it."""

    def __enter__(self):
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "50"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True) if shutil.which("nvidia-smi") else None
        self.samples = []
        if self.process:
            threading.Thread(target=self.read, daemon=True).start()
        return self

    def read(self):
        for line in self.process.stdout:
            if line.strip().isdigit():
                self.samples.append(int(line))

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.process.wait()
        self.share = statistics.mean(self.samples) / 100 if self.samples else None


def pytorch(model, windows, batch, device):
    """Seconds that PyTorch takes for this many windows, in FP32 and in FP16 autocast. The network is the bundle's
    own definition; its weights do not matter for the time."""
    import torch
    from monai.bundle import ConfigParser

    config = json.loads((model / "configs/inference.json").read_text())
    parser = ConfigParser(config)
    network = parser.get_parsed_content("network_def").to(device).eval()
    images = torch.rand(batch, 1, *config["inferer"]["roi_size"])
    found = {}
    for name in ("FP32", "FP16"):
        half = torch.autocast(device.split(":")[0], torch.float16 if device != "cpu" else torch.bfloat16,
                              enabled=name == "FP16")
        with torch.no_grad(), half:
            # From host memory and back, like the server's windows.
            def run():
                return network(images.to(device)).float().cpu()

            for _ in range(3):
                run()
            started = time.perf_counter()
            for _ in range(-(-windows // batch)):
                run()
            found[name] = time.perf_counter() - started
    return found


def measure(case, packages, provider, runs):
    columns, windows = {}, 0
    for name, folder in packages.items():
        with Ours(case, folder, EXECUTION_PROVIDERS=provider) as ours:
            ours.request()
            with Busy() as busy:
                columns[name], result = ours.times(runs)
            windows = result["windows"]
        used = result["executionProvider"]
        shown = "" if busy.share is None else f", GPU busy {busy.share:.0%} of the requests' time"
        print(f"  {name}: {used}, nodes {result.get('nodes')}, left to the CPU {result.get('operatorsOnCpu', [])}, "
              f"pinned memory {result.get('pinnedMemory')}, sessions on a GPU {result.get('sessionsPerGpu')}{shown}")
    table(f"{case.name} (seconds)", columns)
    return windows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--provider", choices=("cuda", "tensorrt", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="the cranium (or the phantom) alone, one run")
    arguments = parser.parse_args()
    model = SHARED / "models/ct_bone_unet"
    if not model.exists():
        model = ROOT / "model/ct_phantom"
    forms = TENSORRT if arguments.provider == "tensorrt" else FORMS
    runs = 1 if arguments.quick else 5
    failed = []
    (ROOT / "target").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as temporary:
        work = Path(temporary)
        packages = {name: package(model, work, name, form[0]) for name, form in forms.items()}
        cranium = SHARED / "data/cranium_ct_dicom.zip"
        if cranium.exists():
            with zipfile.ZipFile(cranium) as archive:
                archive.extractall(work / "cranium-dicom")
            first = Case("cranium", work / "cranium-dicom", work)
        else:
            first = phantom(work, "phantom", 40, 0.7)
        with Ours(first, model, EXECUTION_PROVIDERS="cpu") as ours:
            expected = labels(ours)
        for name, folder in packages.items():
            with Ours(first, folder, EXECUTION_PROVIDERS=arguments.provider) as ours:
                same = float((labels(ours) == expected).mean())
            least = forms[name][1]
            print(f"{first.name}, {name}: {same:.5%} of the labels equal to the CPU's (at least {least:.2%})")
            if same < least:
                failed.append(name)
        cases = [first]
        if not arguments.quick:
            cases += [phantom(work, "p160", 160, 0.7), phantom(work, "p600", 600, 0.7)]
        batch = json.loads((model / "configs/inference.json").read_text())["inferer"]["sw_batch_size"]
        for case in cases:
            windows = measure(case, packages, arguments.provider, runs)
            device = "cpu" if arguments.provider == "cpu" else "cuda:0"
            seconds = pytorch(model, windows if device != "cpu" else batch, batch, device)
            print(f"  PyTorch, {windows if device != 'cpu' else batch} windows on {device}: FP32 {seconds['FP32']:.3f} s, "
                  f"FP16 autocast {seconds['FP16']:.3f} s")
    if failed:
        raise SystemExit(f"labels differ too much: {', '.join(failed)}")


if __name__ == "__main__":
    main()
