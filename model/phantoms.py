"""Shared by training and evaluation: phantoms created by the binary, read as MONAI reads them."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, Orientationd, Spacingd

ROOT = Path(__file__).resolve().parent.parent
BUNDLE = ROOT / "model" / "ct_phantom"


def add_arguments(parser):
    """Flags of both scripts: the binary, and the folder for phantoms."""
    binary = os.environ.get("AHI_INFERENCE_BIN", ROOT / "target" / "release" / "ahi-inference")
    parser.add_argument("--binary", type=Path, default=binary, help="the ahi-inference binary")
    parser.add_argument("--work", type=Path, default=ROOT / "target" / "phantoms", help="folder for phantoms")


def make_phantom(binary, work, seed=None):
    """Creates the phantom of a seed (the demo's if None) anew; returns its folder."""
    folder = work / ("demo" if seed is None else str(seed))
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    chosen = [] if seed is None else ["--seed", str(seed)]
    subprocess.run([binary, "phantom", "--out", folder, *chosen], check=True, stdout=subprocess.DEVNULL)
    return folder


def read_truth(folder):
    """The true labels of a phantom, channel first (1, X, Y, Z), with the affine in RAS."""
    about = json.loads((folder / "phantom.json").read_text())
    labels = torch.from_numpy(np.ascontiguousarray(np.load(folder / "truth.npy")))
    return MetaTensor(labels[None].float(), affine=torch.tensor(about["affine"], dtype=torch.float64))


def read_config():
    """The bundle's inference.json, for MONAI to resolve."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / "inference.json")
    parser["bundle_root"] = str(BUNDLE)
    parser["device"] = "$torch.device('cpu')"
    # The scripts pass one image at a time, and nothing is saved.
    parser["datalist"] = []
    steps = parser["postprocessing"]["transforms"]
    parser["postprocessing"]["transforms"] = [s for s in steps if s["_target_"] != "SaveImaged"]
    return parser


def label_preprocessing(parser):
    """The spatial part of the bundle's preprocessing, for labels."""
    steps = {step["_target_"]: step for step in parser["preprocessing"]["transforms"]}
    return Compose([
        Orientationd("label", axcodes=steps["Orientationd"]["axcodes"]),
        Spacingd("label", pixdim=steps["Spacingd"]["pixdim"], mode="nearest"),
    ])
