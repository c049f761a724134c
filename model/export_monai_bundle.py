#!/usr/bin/env python3
"""Exports the network of a MONAI bundle to ONNX and checks it against PyTorch.

    python model/export_monai_bundle.py BUNDLE [--pack model.tar.gz] [--dicom FOLDER] [--set PATH=VALUE]

Takes the network that `configs/inference.*` defines, with the checkpoint that its `CheckpointLoader` names
(`models/model.pt` if it has none), or `models/model.ts` (TorchScript) if that is missing. Writes
`models/model.onnx` with a free batch size and the window of the bundle's inferer.

Norms over large windows are written so that ONNX Runtime's CPU kernels compute them accurately. The result is
compared with PyTorch in f64, alongside PyTorch in f32: on windows of DICOM series if --dicom names their folders
(one for each image that the bundle takes), else on synthetic ones. If ONNX Runtime's largest error is more than
--tolerance times PyTorch's own, nothing is written. A JSON report goes to standard output, progress to standard
error.

--pack adds the archive that a SageMaker endpoint takes: the bundle's configuration, the ONNX file and
`serving.json`, at the top level. --set changes an entry of the configuration, for both the network and the package
(displayable_configs#highres=false); the bundle's folder then stays as it is.

Needs model/requirements.txt, and what the bundle's own network imports (`required_packages_version` and
`optional_packages_version` of its metadata.json).
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

# Neither the demo's folder nor a bundle, which may be read-only, should get compiled files.
sys.dont_write_bytecode = True
warnings.filterwarnings("ignore", category=FutureWarning)

from monai_export import networks, onnx_file, package, parity, windows  # noqa: E402
from monai_export.configuration import Configuration, parse_override  # noqa: E402
from monai_export.failure import ExportError  # noqa: E402
from monai_export.progress import say, step  # noqa: E402


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--pack", type=Path, metavar="FILE", help="write a model.tar.gz")
    parser.add_argument("--dicom", type=Path, nargs="+", default=[], metavar="FOLDER", help="compare on these images")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change the configuration; with --pack")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="take these (.pt, .ts) in place of the bundle's")
    parser.add_argument("--trust-checkpoint", action="store_true", help="load a checkpoint that holds more than tensors")
    parser.add_argument("--window", type=int, nargs="+", metavar="SIZE", help="where the bundle does not fix it")
    parser.add_argument("--opset", type=int, default=17)
    parser.add_argument("--inputs", type=int, default=3, help="windows to compare on")
    parser.add_argument("--tolerance", type=float, default=10.0, help="largest error, as a multiple of PyTorch's own")
    options = parser.parse_args()
    if options.inputs < 1:
        parser.error("--inputs: at least 1")
    if options.window and (len(options.window) not in (2, 3) or min(options.window) < 1):
        parser.error("--window: two or three sizes of at least 1")
    if options.set and not options.pack:
        parser.error("--set needs --pack: what is served has to run with the same configuration; "
                     "or change the bundle's own")
    return options


def export(options, work, configuration):
    """Creates and checks `model.onnx` in the folder `work`; returns the report."""
    with step("loading the network"):
        network, source = networks.load(configuration, options.weights, options.trust_checkpoint)
    channels, size = configuration.channels(network), configuration.window(options.window)
    with step(f"exporting windows of {' x '.join(map(str, size))}, {channels} channels; transformers take minutes"):
        result, rewritten, left = onnx_file.export(network, work, (1, channels, *size), options.opset)
    if left:
        configuration.notes.append(f"norms whose sizes are not known are left as they are: {', '.join(left)}")
    if options.dicom:
        with step("preparing the images"):
            compared = windows.of_dicom(configuration, options.dicom, channels, size, options.inputs)
    else:
        compared = list(windows.made_up(channels, size, options.inputs))
    report, good = parity.measure(
        network, work / onnx_file.FILE, compared, configuration.batch(), options.tolerance)
    if report.get("batch", {}).get("mixesWindows"):
        configuration.notes.append("the network mixes the windows of a batch: results depend on which are together, and "
                                   "on a CPU the server runs each by itself")
    inside = configuration.bundle in source.resolve().parents
    return {
        "source": str(source.resolve().relative_to(configuration.bundle) if inside else source),
        "opset": options.opset,
        "input": [channels, *size],
        "output": list(result[1:]),
        "normsInTwoStages": rewritten,
        "parity": {"images": "dicom" if options.dicom else "made up", **report},
        "notes": configuration.notes,
    }, good


def run(options):
    overrides = [parse_override(text) for text in options.set]
    configuration = Configuration(options.bundle, overrides)
    models = configuration.bundle / "models"
    # Next to its destination, so that it can be moved there in one step; a failure leaves nothing behind.
    had_models = models.is_dir()
    models.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".export-", dir=models))
    try:
        report, good = export(options, work, configuration)
        if not good:
            print(json.dumps(report, indent=2))
            raise ExportError("ONNX Runtime differs from f64 by more than the tolerance; nothing was written")
        target = models / onnx_file.FILE
        if options.set:
            say("the bundle's own folder stays as it is: the network belongs to the changed configuration")
        else:
            # The weights first: the old network has no such file, or is of no use without it.
            for name in (onnx_file.WEIGHTS, onnx_file.FILE):
                if (work / name).is_file():
                    os.chmod(work / name, 0o644)
                    (work / name).replace(models / name)
            report["onnx"] = {"file": str(target), "bytes": target.stat().st_size}
        if options.pack:
            with step(f"packing {options.pack}"):
                package.pack(configuration, work if options.set else models, options.pack, bool(options.set))
            report["package"] = {"file": str(options.pack), "bytes": options.pack.stat().st_size}
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if not had_models and models.is_dir() and not any(models.iterdir()):
            models.rmdir()
    print(json.dumps(report, indent=2))


def main():
    # Clean up on SIGTERM, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options = arguments()
    try:
        run(options)
    except ExportError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
