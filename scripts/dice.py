#!/usr/bin/env python3
"""Compares a DICOM segmentation with the truth of a phantom.

    scripts/dice.py SEG.dcm PHANTOM_FOLDER [--least 0.9]

Prints the Dice of every label; exits with 1 if one is below --least. Segment numbers are taken as labels. Every
frame is placed by its position and orientation, so a mirrored or shifted segmentation scores what it deserves.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pydicom

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def functional_group(dataset, frame, name):
    """An item of a frame's functional groups, its own or shared (PS3.3 C.7.6.16)."""
    for groups in (dataset.PerFrameFunctionalGroupsSequence[frame], dataset.SharedFunctionalGroupsSequence[0]):
        if name in groups:
            return groups[name].value[0]
    raise SystemExit(f"frame {frame + 1} has no {name}")


def frame_indices(dataset, frame, to_index):
    """Indices (X, Y, Z) into the truth for every pixel of a frame: (rows, columns, 3)."""
    orientation = functional_group(dataset, frame, "PlaneOrientationSequence").ImageOrientationPatient
    along_row, along_column = np.array(orientation, float).reshape(2, 3)
    between_rows, between_columns = map(float, functional_group(dataset, frame, "PixelMeasuresSequence").PixelSpacing)
    first = np.array(functional_group(dataset, frame, "PlanePositionSequence").ImagePositionPatient, float)
    row, column = np.mgrid[: dataset.Rows, : dataset.Columns][..., None]
    lps = first + column * between_columns * along_row + row * between_rows * along_column
    index = (lps * LPS_TO_RAS) @ to_index[:3, :3].T + to_index[:3, 3]
    whole = np.rint(index).astype(int)
    if np.abs(index - whole).max() > 0.01:
        raise SystemExit(f"frame {frame + 1} does not lie on the voxels of the phantom")
    return whole


def label_map(dataset, shape, affine):
    """The segments of a binary DICOM segmentation as one label map with the axes X, Y, Z."""
    labels = np.zeros(shape, np.uint8)
    to_index = np.linalg.inv(affine)
    pixels = dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)
    for frame, mask in enumerate(pixels):
        segment = functional_group(dataset, frame, "SegmentIdentificationSequence").ReferencedSegmentNumber
        x, y, z = frame_indices(dataset, frame, to_index)[mask > 0].T
        labels[x, y, z] = segment
    return labels


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("segmentation", type=Path)
    arguments.add_argument("phantom", type=Path)
    arguments.add_argument("--least", type=float, default=0.0)
    args = arguments.parse_args()

    about = json.loads((args.phantom / "phantom.json").read_text())
    truth = np.load(args.phantom / "truth.npy")
    labels = label_map(pydicom.dcmread(args.segmentation), truth.shape, np.array(about["affine"]))
    worst = 1.0
    for entry in about["labels"]:
        a, b = truth == entry["label"], labels == entry["label"]
        dice = 2 * np.count_nonzero(a & b) / max(1, np.count_nonzero(a) + np.count_nonzero(b))
        print(f"{entry['name']:<22} Dice {dice:.4f}   {np.count_nonzero(b)} voxels, truth {np.count_nonzero(a)}")
        worst = min(worst, dice)
    if worst < args.least:
        sys.exit(f"below {args.least}")


if __name__ == "__main__":
    main()
