#!/usr/bin/env python3
"""Dice of the exported network on phantoms it was not trained on, computed with MONAI.

Preprocessing, sliding window and postprocessing are those of configs/inference.json as MONAI runs them; only the
network itself runs in ONNX Runtime. The server's label maps are compared with this reference.

    python model/evaluate_phantom.py               # the demo's phantom and eight others
    python model/evaluate_phantom.py --seeds 7 8
"""

import argparse
import json
import warnings

warnings.filterwarnings("ignore")

import numpy as np
import onnxruntime
import torch
from monai.transforms import SpatialResample

import phantoms


def network_of(path):
    """The ONNX file as a function from tensor to tensor, (N, 1, X, Y, Z) to (N, C, X, Y, Z)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: np.ascontiguousarray(x.numpy())})[0])


def segment(parser, network, folder):
    """Label map of the DICOM files in `folder`, (1, X, Y, Z), in the geometry MONAI loaded."""
    data = parser.get_parsed_content("preprocessing")({"image": str(folder)})
    with torch.no_grad():
        window = parser.get_parsed_content("inferer")
        data["pred"] = window(data["image"][None], network)[0]
    return parser.get_parsed_content("postprocessing")(data)["pred"]


def dice(truth, labels, classes):
    """Dice per foreground class of two label maps of the same shape."""
    scores = []
    for c in range(1, classes):
        a, b = truth == c, labels == c
        scores.append(2 * float((a & b).sum()) / max(1.0, float(a.sum() + b.sum())))
    return scores


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    phantoms.add_arguments(arguments)
    arguments.add_argument("--seeds", type=int, nargs="*", help="instead of the demo's and 1 to 8")
    arguments.add_argument("--save", action="store_true", help="write reference.npy beside each truth.npy")
    args = arguments.parse_args()

    parser = phantoms.read_config()
    network = network_of(phantoms.BUNDLE / "models" / "model.onnx")
    metadata = json.loads((phantoms.BUNDLE / "configs" / "metadata.json").read_text())
    names = list(metadata["network_data_format"]["outputs"]["pred"]["channel_def"].values())
    print(f"{'seed':>8}  " + "  ".join(f"{name:>20}" for name in names[1:]))
    rows = []
    for seed in args.seeds or [None, *range(1, 9)]:
        folder = phantoms.make_phantom(args.binary, args.work, seed)
        truth = phantoms.read_truth(folder)
        labels = segment(parser, network, folder / "dicom")
        # MONAI orders slices by instance number, from the head; the truth starts at the feet.
        labels = SpatialResample(mode="nearest")(labels, dst_affine=truth.affine, spatial_size=truth.shape[1:])
        if args.save:
            np.save(folder / "reference.npy", labels[0].numpy().astype(np.uint8))
        scores = dice(truth, labels, len(names))
        rows.append(scores)
        print(f"{'demo' if seed is None else seed:>8}  " + "  ".join(f"{x:20.4f}" for x in scores), flush=True)
    print(f"{'mean':>8}  " + "  ".join(f"{x:20.4f}" for x in np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
