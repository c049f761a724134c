#!/usr/bin/env python3
"""Whole chains of pre- and postprocessing, computed by MONAI itself: the `.npz` files beside this script.

Usage: make.py [OUT_DIR [SEED]]
Needs: torch, monai, scikit-image. The files were made with MONAI 1.6.1, torch 2.15, scikit-image 0.26, SEED 1.

`spec` says what was applied, as a bundle's configuration has it. Arrays are channel-first with axes (C, X, Y, Z) as
MONAI sees them, affines are 4x4 RAS. `image` went through the preprocessing to the size of `logits`, which went
through the postprocessing to `output`.
"""
import json
import os
import sys
import warnings
import zlib

import monai.transforms as transforms
import monai.transforms.utils
import numpy as np
import torch
from monai.data import MetaTensor
from scipy.ndimage import gaussian_filter

warnings.filterwarnings("ignore")
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
rng = None

# MONAI documents that objects smaller than min_size are removed. scikit-image since 0.26 takes the number, which
# MONAI hands on by its position, for the largest size that is removed.
morphology = monai.transforms.utils.morphology


class Documented:
    @staticmethod
    def remove_small_objects(image, min_size, connectivity):
        return morphology.remove_small_objects(image, max_size=min_size - 1, connectivity=connectivity)


monai.transforms.utils.morphology = Documented


def smooth(shape, sigma):
    field = gaussian_filter(rng.normal(size=shape), sigma)
    return (field - field.min()) / np.ptp(field)


def logits(classes, dims):
    """Shells of classes about each other, with islands; in steps, so that files are small."""
    field = smooth(dims, 1.6) * (classes + 1)
    values = np.stack([-np.abs(field - c - 0.5) for c in range(classes)])
    values += 0.35 * gaussian_filter(rng.normal(size=values.shape), (0, 0.6, 0.6, 0.6))
    return (np.round(values * 64) / 64).astype(np.float32)


def affine(spacing, order=(0, 1, 2), flips=(-1, -1, 1), turn=(0, 0, 0), decimals=None, tilt=0.0):
    """Columns as a scanner writes them: direction cosines with some decimals, the third by position."""
    a, b, c = np.deg2rad(turn)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    m = np.zeros((3, 3))
    for column, (axis, flip) in enumerate(zip(order, flips)):
        m[axis, column] = flip
    m = x @ y @ z @ m
    m[:, 2] += np.tan(np.deg2rad(tilt)) * m[:, 1]
    if decimals is not None:
        m = np.round(m, decimals)
    out = np.eye(4)
    out[:3, :3] = m * spacing
    out[:3, 3] = np.round(rng.uniform(-200, 200, 3), 3)
    return out


def composed(specs, pre=None):
    steps = []
    for spec in specs:
        spec = dict(spec)
        target = spec.pop("_target_")
        if target == "Invertd":
            spec.update(transform=pre, orig_keys="image")
        steps.append(getattr(transforms, target)(**spec))
    return transforms.Compose(steps)


def make(name, pre, post, classes, dims=(15, 13, 11), **kw):
    global rng
    rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
    a = affine(**kw)
    image = np.round(smooth((1, *dims), 2.0) * 200).astype(np.float32)
    pre = [{"keys": "image", **spec} for spec in pre]
    post = [{"keys": "pred", **spec} for spec in post]
    chain = composed(pre)
    data = chain({"image": MetaTensor(torch.from_numpy(image), affine=torch.from_numpy(a))})
    values = logits(classes, tuple(data["image"].shape[1:]))
    data["pred"] = MetaTensor(torch.from_numpy(values), meta=data["image"].meta)
    out = composed(post, chain)(data)["pred"]
    path = os.path.join(OUT, name + ".npz")
    spec = json.dumps({"preprocessing": pre, "postprocessing": post})
    np.savez_compressed(path, spec=spec, image=image, affine=a, logits=values, output=np.asarray(out, np.float32))
    print(name, values.shape, tuple(out.shape), os.path.getsize(path))


def step(target, **args):
    return {"_target_": target, **args}


RAS = step("Orientationd", axcodes="RAS")
SPACING = step("Spacingd", pixdim=[1.2, 1.2, 1.5], mode="bilinear")
PLAIN = dict(spacing=(0.9, 0.8, 2.2))
SOFTMAX, SIGMOID = step("Activationsd", softmax=True), step("Activationsd", sigmoid=True)
ARGMAX, HALF = step("AsDiscreted", argmax=True), step("AsDiscreted", threshold=0.5)
LINEAR, NEAREST = step("Invertd", nearest_interp=False), step("Invertd", nearest_interp=True)
ONEHOT = step("AsDiscreted", argmax=True, to_onehot=4)
ROUND = step("AsDiscreted", rounding="torchrounding")
FILL, LARGEST = step("FillHolesd"), step("KeepLargestConnectedComponentd")


def small(size, **more):
    return step("RemoveSmallObjectsd", min_size=size, **more)


# One-hot channels, an operation at a time on either grid.
for name, chain in {
    "fill": [FILL],
    "fill_faces": [step("FillHolesd", applied_labels=[1, 3], connectivity=1)],
    "small": [small(6)],
    "small_edges": [small(6, connectivity=2)],
    "small_union": [small(9, independent_channels=False)],
    "largest": [LARGEST],
    "largest_union": [step("KeepLargestConnectedComponentd", applied_labels=[1, 2], independent=False)],
    "all": [LARGEST, FILL, small(12)],
    "fill_argmax": [FILL, ARGMAX],
    "largest_fill_argmax": [small(8), FILL, ARGMAX],
}.items():
    make(f"onehot_{name}", [RAS, SPACING], [SOFTMAX, LINEAR, ONEHOT, *chain], 4, **PLAIN)
    make(f"onehot_{name}_before", [RAS, SPACING], [ONEHOT, *chain, NEAREST], 4, **PLAIN)
for name, operation in {"small": small(5), "small_volume": small(11.0, by_measure=True)}.items():
    make(f"mask_{name}", [RAS, SPACING], [SIGMOID, LINEAR, HALF, operation], 1, **PLAIN)
    make(f"mask_{name}_before", [RAS, SPACING], [SIGMOID, HALF, operation, NEAREST], 1, **PLAIN)
    make(f"masks_{name}", [RAS, SPACING], [SIGMOID, LINEAR, HALF, operation], 3, **PLAIN)
make("masks_argmax", [RAS, SPACING], [SIGMOID, LINEAR, HALF, ARGMAX], 3, **PLAIN)

# Labels and masks that are interpolated on the way back.
for name, chain in {
    "labels": [ARGMAX, step("KeepLargestConnectedComponentd", applied_labels=[1, 2]), LINEAR],
    "labels_rounded": [ARGMAX, LINEAR, ROUND, LARGEST],
    "binary": [SIGMOID, HALF, LINEAR, HALF],
    "masks": [SIGMOID, HALF, LINEAR, step("AsDiscreted", threshold=0.3)],
    "onehot": [ONEHOT, LINEAR],
    "onehot_argmax": [ONEHOT, LINEAR, ARGMAX],
    "onehot_fill_argmax": [ONEHOT, FILL, LINEAR, step("AsDiscreted", argmax=True, to_onehot=4)],
    "onehot_threshold": [ONEHOT, LINEAR, step("AsDiscreted", threshold=0.7)],
}.items():
    make(f"interpolated_{name}", [RAS, SPACING], chain, 1 if name == "binary" else 4, **PLAIN)
# No voxel of the source lies on one of the network's, where a mask's 0 and a weight of 1e-17 beside it would be ties.
make("interpolated_masks_argmax", [RAS, step("Spacingd", pixdim=[1.13, 1.07, 1.47], mode="bilinear")],
     [SIGMOID, HALF, LINEAR, ARGMAX], 4, **PLAIN)
for mode in ("nearest", "nearest-exact", "trilinear", "area"):
    resized = step("Resized", spatial_size=[11, 16, 9], mode=mode)
    make(f"resized_{mode}_labels", [RAS, resized], [ARGMAX, LINEAR], 3, **PLAIN)
    make(f"resized_{mode}_labels_nearest", [RAS, resized], [ARGMAX, NEAREST], 3, **PLAIN)
    make(f"resized_{mode}_values", [RAS, resized], [LINEAR, ARGMAX], 3, **PLAIN)

# Activations after the inversion, and rounding.
make("after_softmax_argmax", [RAS, SPACING], [LINEAR, SOFTMAX, ARGMAX], 4, **PLAIN)
make("after_softmax_threshold", [RAS, SPACING], [LINEAR, SOFTMAX, step("AsDiscreted", threshold=0.4)], 4, **PLAIN)
make("after_sigmoid_threshold", [RAS, SPACING], [LINEAR, SIGMOID, step("AsDiscreted", threshold=0.35)], 3, **PLAIN)
make("after_sigmoid_argmax", [RAS, SPACING], [LINEAR, SIGMOID, ARGMAX], 2, **PLAIN)
make("after_rounding", [RAS, SPACING], [SIGMOID, LINEAR, ROUND], 3, **PLAIN)

# Orientations as scanners write them, and what stands before and behind the resampling.
ORIENTATIONS = {
    "rounded": dict(turn=(1.3, -0.7, 2.1), decimals=6),
    "rounded_coarse": dict(turn=(-4, 6, 3), decimals=3),
    "rounded_coronal": dict(order=(0, 2, 1), flips=(-1, -1, -1), turn=(12, 5, -9), decimals=6),
    "rounded_sagittal": dict(order=(1, 2, 0), flips=(1, -1, 1), turn=(-20, 31, 17), decimals=5),
    "tilted": dict(turn=(3, 0, 0), decimals=6, tilt=14),
}
for name, kw in ORIENTATIONS.items():
    kw = dict(kw, **PLAIN)
    for classes in (2, 5):
        make(f"oblique_{name}_{classes}_argmax", [RAS, SPACING], [SOFTMAX, LINEAR, ARGMAX], classes, **kw)
    make(f"oblique_{name}_2_masks", [RAS, SPACING], [SIGMOID, LINEAR, HALF], 2, **kw)
    make(f"oblique_{name}_labels", [RAS, SPACING], [ARGMAX, NEAREST], 4, **kw)
    make(f"oblique_{name}_interpolated", [RAS, SPACING], [ARGMAX, LINEAR], 4, **kw)
    make(f"oblique_{name}_onehot", [RAS, SPACING], [ONEHOT, LINEAR, ARGMAX], 4, **kw)
turned = dict(turn=(25, -33, 41), decimals=6, **PLAIN)
for name, pre in {
    "axes": [step("Spacingd", pixdim=[1.3, 1.1, 1.7], diagonal=True)],
    "axes_zeros": [step("Spacingd", pixdim=[1.3, 1.1, 1.7], diagonal=True, padding_mode="zeros")],
    "axes_mirror": [step("Spacingd", pixdim=[1.3, 1.1, 1.7], diagonal=True, padding_mode="reflection")],
    "nearest": [RAS, step("Spacingd", pixdim=[1.2, 1.2, 1.5], mode="nearest", align_corners=True)],
    "windows": [step("CenterSpatialCropd", roi_size=[13, -1, 9]), RAS, step("SpatialPadd", spatial_size=[17, 17, 17]),
                step("Spacingd", pixdim=[1.21, 1.17, 1.53]), step("DivisiblePadd", k=[8, 1, 4]),
                step("CenterSpatialCropd", roi_size=[14, 12, -1])],
    "resized": [RAS, SPACING, step("Resized", spatial_size=[9, 14, 12], mode="trilinear")],
    "resized_before": [step("Resized", spatial_size=[17, 11, 9], mode="trilinear"), RAS, SPACING],
    "twice": [SPACING, RAS, step("Spacingd", pixdim=[1.5, 1.4, 1.3], diagonal=True)],
}.items():
    make(f"way_{name}_argmax", pre, [SOFTMAX, LINEAR, ARGMAX], 3, **turned)
    make(f"way_{name}_masks", pre, [SIGMOID, LINEAR, HALF], 2, **turned)
    make(f"way_{name}_labels", pre, [ARGMAX, NEAREST], 3, **turned)

# Flips and turns.
for name, pre in {
    "flip": [step("Flipd", spatial_axis=1)],
    "flip_two": [step("Flipd", spatial_axis=[0, -1]), SPACING],
    "flip_all": [step("Flipd")],
    "turn": [step("Rotate90d", k=1, spatial_axes=[0, 1]), SPACING],
    "turn_back": [SPACING, step("Rotate90d", k=3, spatial_axes=[2, 0])],
    "turn_half": [step("Rotate90d", k=2, spatial_axes=[1, 2])],
}.items():
    make(f"turned_{name}", pre, [SOFTMAX, LINEAR, ARGMAX], 3, **dict(PLAIN, turn=(5, 3, -2), decimals=6))
