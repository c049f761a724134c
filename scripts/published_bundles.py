"""Published bundles in PyTorch and in this program: see scripts/published-bundles.sh, which calls this.

MONAI's side is the bundle's own transforms, inferer and network from its configuration, in f32. A voxel whose
labels differ is a tie if the two best classes are closer than 1e-3 in the values that the bundle takes the label
from.
"""

import argparse
import base64
import copy
import gzip
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "model")]
from bench import ask, start, wait_until_ready  # noqa: E402
from compare import BINARY, ENVIRONMENT, KEYS, LISTENING, SHARED, output_of  # noqa: E402

# The variable that names the program is not a setting of the program, which refuses unknown ones.
os.environ.pop("AHI_INFERENCE_BIN", None)
TIE = 1e-3
WANTED = 0.99999
# For MR images: how the four images of one bundle differ.
FACTORS = (1.0, 1.7, 0.6, 1.3)


def cpu_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


# Input for a bundle: a small CT, or the same as MR.

def series(folder, modality, images, size, slices, spacing):
    """One folder of DICOM files for each image: a phantom, changed if they are to be MR images."""
    import numpy as np
    import pydicom
    from pydicom.uid import MRImageStorage, generate_uid

    phantom = folder / "phantom"
    output_of(BINARY, "phantom", "--out", phantom, "--size", size, "--slices", slices, "--spacing", spacing,
              "--slice-spacing", spacing)
    if modality == "CT":
        return [phantom / "dicom"]
    folders = []
    for number in range(images):
        made, uid = folder / f"image{number}", generate_uid()
        made.mkdir()
        for index, path in enumerate(sorted((phantom / "dicom").rglob("*.dcm"))):
            data = pydicom.dcmread(path)
            pixels = data.pixel_array.astype(np.float64) * float(data.RescaleSlope) + float(data.RescaleIntercept)
            # Air is 0, as in MR images without noise; the rest differs by image.
            pixels = np.where(pixels < -900, 0, (pixels + 1100) * FACTORS[number % 4] + 40 * number)
            data.PixelData = np.clip(pixels, 0, 32000).astype(np.uint16).tobytes()
            data.PixelRepresentation, data.BitsStored, data.HighBit = 0, 16, 15
            data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = MRImageStorage
            data.Modality, data.SeriesInstanceUID = "MR", uid
            data.SeriesDescription = f"image {number}"
            data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType", "SmallestImagePixelValue"):
                if keyword in data:
                    delattr(data, keyword)
            data.save_as(made / f"{index:04}.dcm")
        folders.append(made)
    return folders


# MONAI's side.

class Gap:
    """Records how far apart the two best classes of each voxel are, before labels are taken."""

    def __init__(self, threshold):
        self.threshold = threshold

    def __call__(self, data):
        import torch
        scores = data["pred"]
        if self.threshold is not None:
            gap = (scores - self.threshold).abs().amin(0, keepdim=True)
        else:
            best = torch.topk(scores.as_tensor() if hasattr(scores, "as_tensor") else scores, 2, dim=0).values
            gap = scores[:1].clone()
            gap[:] = best[:1] - best[1:]
        return data | {"gap": gap}


def monai(bundle, folders):
    """Labels, gaps and affine (RAS) from MONAI's pipeline."""
    import numpy as np
    import torch
    from monai.data import decollate_batch, list_data_collate
    from monai.transforms import Compose, Invertd, LoadImaged
    from monai_export import networks
    from monai_export.configuration import Configuration

    configuration = Configuration(bundle)
    network, _ = networks.load(configuration)
    configuration.read_dicom()
    post = configuration.parser.get("postprocessing")
    post["transforms"] = [t for t in post["transforms"] if t["_target_"].split(".")[-1] != "SaveImaged"]
    configuration.parser["postprocessing"] = post
    preprocessing, inferer = configuration.get("preprocessing"), configuration.get("inferer")
    transforms = configuration.get("postprocessing").transforms
    named = [t["_target_"].split(".")[-1] for t in post["transforms"]]
    discrete = named.index("AsDiscreted")
    argmax = post["transforms"][discrete].get("argmax", False)
    steps = [*transforms[:discrete], Gap(None if argmax else post["transforms"][discrete]["threshold"]),
             *transforms[discrete:]]
    key = next(t for t in preprocessing.transforms if isinstance(t, LoadImaged)).keys[0]
    paths = [str(folder) for folder in folders]
    with torch.no_grad():
        data = preprocessing({key: paths if len(paths) > 1 else paths[0]})
        # Through a loader's collation and back, as in a bundle's evaluator.
        batch = list_data_collate([data])
        batch["pred"] = inferer(batch[key], network)
        [item] = decollate_batch(batch)
        operations = copy.deepcopy(item[key].applied_operations)
        item = Compose(steps)(item)
        if "Invertd" in named[discrete:]:
            # What was recorded before the inverse transform is transformed back, too.
            item[key].applied_operations = operations
            item = Invertd(keys="gap", transform=preprocessing, orig_keys=key, nearest_interp=True, to_tensor=True)(item)
    affine = np.asarray(item["pred"].affine if hasattr(item["pred"], "affine") else data[key].affine, float)
    array = lambda value: np.asarray(value.as_tensor() if hasattr(value, "as_tensor") else value)
    return array(item["pred"])[0], array(item["gap"])[0], affine, named


# The program's side.

def ours(bundle, folders, names, work):
    """Labels and affine of the program's NIfTI, and its report."""
    import nibabel

    store = work / "store"
    sets = []
    for folder in folders:
        made = json.loads(output_of(BINARY, "import", folder, "--folder", store))
        sets.append({"datastoreId": made["datastoreId"], "imageSetId": made["imageSets"][0]["imageSetId"]})
    emulator, endpoint = start([BINARY, "emulate", "--folder", store, "--port", "0", "--s3-port", "0"], ENVIRONMENT, LISTENING)
    try:
        server, address = start([BINARY, "serve", "--model", bundle, "--port", "0", "--host", "127.0.0.1"],
                                ENVIRONMENT | KEYS | {"AHI_ENDPOINT_URL": endpoint, "REQUEST_TIMEOUT": "7200"}, LISTENING)
        try:
            wait_until_ready(address)
            image = sets[0] if len(sets) == 1 else {"images": dict(zip(names, sets))}
            _, content = ask(address, json.dumps({"inputs": [image], "outputs": ["nifti"]}).encode(), "application/json")
        finally:
            server.terminate()
            server.wait()
    finally:
        emulator.terminate()
        emulator.wait()
    result = json.loads(content)["results"][0]
    data = base64.b64decode(result["outputs"][0]["data"])
    file = work / "labels.nii"
    file.write_bytes(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    image = nibabel.load(file)
    import numpy as np
    return np.asarray(image.dataobj), image.affine, result


def on_grid(array, affine, other_affine, shape):
    """An array on the other grid, which is a permutation and reflection of its own."""
    import numpy as np
    to = np.linalg.inv(affine) @ other_affine
    axes = [int(np.abs(to[:3, axis]).argmax()) for axis in range(3)]
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ to[:3, :3].T + to[:3, 3]
    whole = np.rint(index).astype(int)
    if sorted(axes) != [0, 1, 2] or np.abs(index - whole).max() > 0.05:
        raise ValueError("MONAI's grid is not the series'")
    return array[tuple(np.moveaxis(whole, -1, 0))]


# The table.

def reason(text):
    """Why a bundle is refused: the first problem other than the missing network."""
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if re.search(r"not supported|only segmentations|cannot|fails", line)]
    return next((line for line in wanted if not line.startswith("this bundle")), "refused")[:110]


def compare(source, work, arguments):
    import numpy as np

    bundle = work / source.name
    shutil.copytree(source, bundle, dirs_exist_ok=True)
    checked = subprocess.run([BINARY, "bundle", "check", bundle], capture_output=True, text=True, env=ENVIRONMENT)
    problems = [p for p in checked.stdout.splitlines() if "models/model.onnx: is missing" not in p]
    if not re.search(r"cannot be served: 1 problem\b", checked.stdout) and checked.returncode:
        return {"result": "refused", "reason": reason("\n".join(problems))}
    used = {}

    def timed(what, function, *args):
        before = cpu_seconds()
        try:
            return function(*args)
        finally:
            used[what] = (cpu_seconds() - before) / 60

    python = [sys.executable, "-W", "ignore"]
    network = bundle / "models/model.onnx"
    if not network.is_file():
        seeded = subprocess.run([*python, ROOT / "scripts/seeded_bundle.py", bundle], capture_output=True, text=True)
        if seeded.returncode:
            return {"result": "not made", "reason": seeded.stderr.strip().splitlines()[-1][:110]}
        command = [*python, ROOT / "model/export_monai_bundle.py", bundle, "--inputs", "1"]
        exported = timed("export", lambda: subprocess.run(command, capture_output=True, text=True))
        (work / f"{source.name}.export.json").write_text(exported.stdout)
        if exported.returncode:
            return {"result": "not exported", "reason": exported.stderr.strip().splitlines()[-1][:110]} | used
    described = json.loads((bundle / "configs/metadata.json").read_text())["network_data_format"]["inputs"]["image"]
    modality = "MR" if described["modality"].startswith("MR") else "CT"
    names = [described["channel_def"][str(channel)] for channel in range(described["num_channels"])]
    folder = Path(tempfile.mkdtemp(dir=work))
    folders = series(folder, modality, len(names), arguments.size, arguments.slices, arguments.spacing)
    theirs, gap, affine, steps = timed("monai", monai, bundle, folders)
    labels, our_affine, report = timed("ours", ours, bundle, folders, names, folder)
    theirs, gap = (on_grid(value, affine, our_affine, labels.shape) for value in (theirs, gap))
    # If a bundle's Invertd interpolates labels, MONAI leaves fractions; the program rounds them, halves to even.
    differ = labels != np.rint(theirs)
    return {
        "result": "compared", "grid": "x".join(map(str, labels.shape)), "windows": report["windows"],
        "classes": len(set(labels.ravel().tolist())), "equal": 1 - differ.mean(), "differ": int(differ.sum()),
        "clear": int((differ & (gap >= TIE)).sum()), "wrongly": "; ".join(report.get("warnings", []))[:80],
    } | used


def show(name, row):
    if row["result"] != "compared":
        return f"{name:<40}{row['result']}: {row['reason']}"
    good = row["equal"] >= WANTED and row["clear"] == 0
    minutes = " ".join(f"{what} {row[what]:.1f}" for what in ("export", "monai", "ours") if what in row)
    return (f"{name:<40}{row['grid']:>12}{row['windows']:>5} windows{row['classes']:>4} labels  equal {row['equal']:.6%}"
            f"  differ {row['differ']}, {row['clear']} beyond ties  {'good' if good else 'BAD'}  CPU minutes: {minutes}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="BUNDLE")
    parser.add_argument("--bundles", type=Path, default=SHARED / "bundles")
    parser.add_argument("--work", type=Path, help="keep what is made in this folder, and go on with what is there")
    parser.add_argument("--size", type=int, default=80, help="columns and rows of the series")
    parser.add_argument("--slices", type=int, default=48)
    parser.add_argument("--spacing", type=float, default=2.0, help="millimetres, in all directions")
    arguments = parser.parse_args()
    names = arguments.names or sorted(p.name for p in arguments.bundles.iterdir() if (p / "configs").is_dir())
    work = arguments.work or Path(tempfile.mkdtemp(dir=ROOT / "target"))
    work.mkdir(parents=True, exist_ok=True)
    bad = 0
    try:
        for name in names:
            started = time.monotonic()
            try:
                row = compare(arguments.bundles / name, work, arguments)
            except Exception as error:
                if os.environ.get("TRACEBACK"):
                    raise
                row = {"result": "failed", "reason": f"{type(error).__name__}: {str(error)[:160]}"}
            bad += row["result"] in ("failed", "not exported", "not made") or row["result"] == "compared" and (
                row["equal"] < WANTED or row["clear"] > 0)
            print(show(name, row), f" ({time.monotonic() - started:.0f} s)", flush=True)
    finally:
        if not arguments.work:
            shutil.rmtree(work, ignore_errors=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
