"""This program compared with what it replaces: see scripts/compare.sh, which calls this.

Both work on the same DICOM files with the same network. MONAI's side does what a MONAI Deploy application does:
the bundle's own transforms and inferer from its configuration, and highdicom for the DICOM SEG. Time inside the
network is measured separately on both sides, so that "all but the network" compares only the rest.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from bench import (ask, bytes_alone, describe_fetching, peak_mebibytes, start,  # noqa: E402
                   wait_until_ready)

ROOT = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("AHI_SHARED", ROOT.parent / "shared"))
BINARY = Path(os.environ.get("AHI_INFERENCE_BIN", ROOT / "target/release/ahi-inference"))
LISTENING = r"listening on (http://\S+)"
FETCH = os.environ["FETCH_BENCH"]
# The variables that name the programs are not settings of the program, which refuses unknown ones.
OWN = ("AHI_INFERENCE_BIN", "FETCH_BENCH")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in OWN}
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1"}


def output_of(*command):
    import subprocess
    return subprocess.check_output(list(map(str, command)), stderr=subprocess.DEVNULL, env=ENVIRONMENT)


class Case:
    """A series as DICOM files and as an image set."""

    def __init__(self, name, dicom, work):
        self.name, self.dicom, self.store = name, dicom, work / f"{name}-store"
        made = json.loads(output_of(BINARY, "import", dicom, "--folder", self.store))
        self.image_set = {"datastoreId": made["datastoreId"], "imageSetId": made["imageSets"][0]["imageSetId"]}


class Ours:
    """The emulator and the server."""

    def __init__(self, case, model, **environment):
        self.emulator, self.endpoint = start(
            [BINARY, "emulate", "--folder", case.store, "--port", "0", "--s3-port", "0"], ENVIRONMENT, LISTENING)
        self.server, self.address = start(
            [BINARY, "serve", "--model", model, "--port", "0", "--host", "127.0.0.1"],
            ENVIRONMENT | KEYS | {"AHI_ENDPOINT_URL": self.endpoint, "REQUEST_TIMEOUT": "3600"} | environment, LISTENING)
        wait_until_ready(self.address)
        self.body = json.dumps(case.image_set).encode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.server, self.emulator):
            process.terminate()
            process.wait()

    def request(self):
        wall, content = ask(self.address, self.body, "application/json")
        return wall, json.loads(content)["results"][0]

    def times(self, runs):
        """Medians of the stages and of the whole, after one request that is not counted."""
        self.request()
        seen = [self.request() for _ in range(runs)]
        stages = {name: statistics.median(result["timings"].get(name, 0.0) for _, result in seen)
                  for name in ("metadata", "frames", "preprocess", "network", "inference", "postprocess", "write")}
        # `inference` includes the network, the work between windows, and postprocessing as planes come.
        stages["windows"] = max(0.0, stages.pop("inference") - stages["network"] - stages["postprocess"])
        stages["whole"] = statistics.median(wall for wall, _ in seen)
        return stages, seen[-1][1]

    def at_once(self, count):
        started = time.perf_counter()
        with ThreadPoolExecutor(count) as pool:
            # A failed request ends the benchmark instead of counting as a fast one.
            list(pool.map(lambda _: self.request(), range(count)))
        return time.perf_counter() - started


def theirs(case, model, runs):
    """The same with MONAI and highdicom: medians of the stages, and the last labels."""
    import highdicom
    import numpy as np
    import onnxruntime
    import pydicom
    import torch
    from monai.bundle import ConfigParser
    from monai.data import decollate_batch
    from pydicom.sr.codedict import codes

    torch.set_num_threads(os.cpu_count())
    parser = ConfigParser()
    config = json.loads((model / "configs/inference.json").read_text())
    transforms = config["postprocessing"]["transforms"]
    config["postprocessing"]["transforms"] = [t for t in transforms if t["_target_"] != "SaveImaged"]
    parser.update(config)
    parser["bundle_root"] = str(model)
    parser["device"] = "$torch.device('cpu')"
    preprocessing, inferer = parser.get_parsed_content("preprocessing"), parser.get_parsed_content("inferer")
    postprocessing = parser.get_parsed_content("postprocessing")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()
    session = onnxruntime.InferenceSession(str(model / "models/model.onnx"), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    inside = 0.0

    def network(batch):
        nonlocal inside
        started = time.perf_counter()
        result = torch.from_numpy(session.run(None, {name: batch.numpy()})[0])
        inside += time.perf_counter() - started
        return result

    # The application, not the bundle, names the reader for a folder of DICOM files.
    load, *rest = preprocessing.transforms
    from monai.transforms import Compose, LoadImaged
    reader = LoadImaged(keys=load.keys, reader="PydicomReader")
    key = load.keys[0]
    seen = []
    for _ in range(runs + 1):
        stages, inside = {}, 0.0
        clock = time.perf_counter()

        def lap(stage):
            nonlocal clock
            now = time.perf_counter()
            stages[stage], clock = now - clock, now

        with torch.no_grad():
            loaded = reader({key: str(case.dicom)})
            lap("frames")
            data = Compose(rest)(loaded)
            lap("preprocess")
            logits = inferer(data[key][None], network)
            lap("windows")
            stages["network"] = inside
            stages["windows"] -= inside
            data["pred"] = logits[0]
            labels = postprocessing(data)["pred"]
            lap("postprocess")
        array = np.asarray(labels)[0].astype(np.uint8)
        sources = [pydicom.dcmread(f) for f in sorted(Path(case.dicom).rglob("*.dcm"))]
        sources.sort(key=lambda s: s.ImagePositionPatient[2])
        # MONAI's array has axes (column, row, slice).
        frames = np.ascontiguousarray(array.transpose(2, 1, 0))
        segment = highdicom.seg.SegmentDescription(
            segment_number=1, segment_label="Bone", segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Bone,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name="bone", version="1", family=codes.DCM.ArtificialIntelligence))
        seg = highdicom.seg.Segmentation(
            sources, frames, highdicom.seg.SegmentationTypeValues.BINARY, [segment], highdicom.UID(), 1,
            highdicom.UID(), 1, "m", "m", "1", "1", omit_empty_frames=True)
        with tempfile.TemporaryFile() as file:
            seg.save_as(file)
        lap("write")
        stages["whole"] = sum(stages.values())
        seen.append(stages)
    median = {stage: statistics.median(s[stage] for s in seen[1:]) for stage in seen[0]}
    return median, array


def connector(case, endpoint, runs):
    """Fetch and decode with AHItoDICOMInterface, in seconds."""
    os.environ.update(KEYS | {"AWS_DISABLE_HOST_PREFIX_INJECTION": "true"})
    import logging
    logging.disable(logging.ERROR)
    from AHItoDICOMInterface.AHItoDICOM import AHItoDICOM

    seen = []
    for _ in range(runs):
        connector = AHItoDICOM(AHI_endpoint=endpoint, fetcher_process_count=2, dicomizer_process_count=2)
        started = time.perf_counter()
        made = connector.DICOMizeImageSet(
            datastore_id=case.image_set["datastoreId"], image_set_id=case.image_set["imageSetId"])
        for file in made:
            file.pixel_array  # noqa: B018 - decoding is asked for
        seen.append(time.perf_counter() - started)
    return statistics.median(seen)


STAGES = ["metadata", "frames", "preprocess", "network", "windows", "postprocess", "write", "whole"]


def rest_of(stages):
    return stages["whole"] - stages["network"]


def table(title, columns):
    print(f"\n{title}")
    print(f"  {'':<14}" + "".join(f"{name:>12}" for name in columns))
    for stage in STAGES:
        print(f"  {stage:<14}" + "".join(f"{times.get(stage, 0.0):12.3f}" for times in columns.values()))


def compare(case, model, runs, with_monai, whole_wanted=1.15):
    with Ours(case, model) as ours:
        stages, result = ours.times(runs)
        peak = peak_mebibytes(ours.server.pid)
        # Both in turns: the clock of a shared machine changes within a minute.
        pairs = [(ours.request()[0], ours.at_once(4)) for _ in range(runs)]
        four_to_one = statistics.median(four / one for one, four in pairs)
        fetched = connector(case, ours.endpoint, runs)
        bytes_only = bytes_alone(FETCH, ours.endpoint, case.image_set, ENVIRONMENT | KEYS, max(3, runs))
    columns = {"ours": stages}
    dimensions = " x ".join(map(str, result["geometry"]["dimensions"]))
    if with_monai:
        columns["MONAI"], labels = theirs(case, model, max(1, runs - 2))
    table(f"{case.name}: {dimensions} voxels, {result['windows']} windows (seconds)", columns)
    ratios = [("whole request / network alone", stages["whole"] / stages["network"], f"at most {whole_wanted:.2f}")]
    if with_monai:
        ratios.append(("all but the network, MONAI's / ours", rest_of(columns["MONAI"]) / rest_of(stages),
                       "at least 20 on 512 x 512 x 160"))
        ours_voxels, their_voxels = result["segments"][0]["voxels"], int((labels == 1).sum())
        print(f"  voxels of the first segment: ours {ours_voxels}, MONAI's {their_voxels}")
    ratios.append(("fetch and decode, AHItoDICOMInterface / ours",
                   fetched / (stages["metadata"] + stages["frames"]), "at least 25"))
    ratios.append(("fetch and decode / bytes alone", bytes_only["ratio"], "at most 1.30"))
    ratios.append(("four requests at once / one", four_to_one, "at most 3.6"))
    for name, value, wanted in ratios:
        print(f"  {name:<46}{value:8.2f}   ({wanted})")
    for line in describe_fetching(bytes_only):
        print(f"  {line}")
    print(f"  peak memory of the server after one request at a time: {peak:.0f} MiB")


def constant_windows(case, model, runs):
    found = {}
    for every in ("true", "false"):
        with Ours(case, model, RUN_EVERY_WINDOW=every) as ours:
            stages, result = ours.times(runs)
            found[every] = stages["whole"], [s["voxels"] for s in result["segments"]]
    assert found["true"][1] == found["false"][1], "the labels differ"
    print(f"\n{case.name}: with constant windows run once {found['false'][0]:.2f} s, each time "
          f"{found['true'][0]:.2f} s: {found['false'][0] / found['true'][0]:.2f} (at most 0.65), voxels equal")


def phantom(work, name, slices, spacing):
    output_of(BINARY, "phantom", "--out", work / name, "--size", 512, "--slices", slices, "--spacing", spacing,
              "--slice-spacing", 1.5)
    return Case(name, work / name / "dicom", work)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one run each, and no volume of 600 slices")
    arguments = parser.parse_args()
    runs = 1 if arguments.quick else 3
    model = SHARED / "models/ct_bone_unet"
    if not model.exists():
        print(f"{model} is not there (AHI_SHARED names its folder's parent): the demo's network takes its place")
        model = ROOT / "model/ct_phantom"
    (ROOT / "target").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as temporary:
        work = Path(temporary)
        cranium = SHARED / "data/cranium_ct_dicom.zip"
        if cranium.exists():
            with zipfile.ZipFile(cranium) as archive:
                archive.extractall(work / "cranium-dicom")
            compare(Case("cranium", work / "cranium-dicom", work), model, runs, True, whole_wanted=1.10)
        compare(phantom(work, "p160", 160, 0.7), model, runs, True)
        constant_windows(phantom(work, "half-air", 160, 1.0), model, 1)
        if not arguments.quick:
            compare(phantom(work, "p600", 600, 0.7), model, 1, False)


if __name__ == "__main__":
    main()
