#!/usr/bin/env python3
"""Trains the network of model/ct_phantom on phantoms and exports it as ONNX.

Network and preprocessing are those of configs/inference.json, read by MONAI itself, so that the network trained is
the one served. The binary creates the phantoms (`ahi-inference phantom`). The seeds of training start at 100000,
apart from the demo's and from those of evaluate_phantom.py.

    pip install -r model/requirements.txt
    cargo build --release
    python model/train_phantom.py
    python model/evaluate_phantom.py
"""

import argparse
import time
import warnings

warnings.filterwarnings("ignore")

import torch
from monai.losses import DiceCELoss
from monai.transforms import RandCropByLabelClassesd
from monai.utils import set_determinism

import phantoms

FIRST_SEED = 100_000


def load(args, parser, count):
    """`count` phantoms, preprocessed: dictionaries of image and label, (1, X, Y, Z) each."""
    images = parser.get_parsed_content("preprocessing")
    labels = phantoms.label_preprocessing(parser)
    pairs = []
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        folder = phantoms.make_phantom(args.binary, args.work, seed)
        image = images({"image": str(folder / "dicom")})["image"]
        label = labels({"label": phantoms.read_truth(folder)})["label"]
        if image.shape != label.shape or not torch.allclose(image.affine, label.affine, atol=1e-3):
            raise SystemExit(f"image and truth of seed {seed} do not lie on each other")
        pairs.append({"image": image.as_tensor(), "label": label.as_tensor()})
    return pairs


def batches(pairs, size, roi, classes):
    """Endless batches of random windows with small changes of density, contrast and noise."""
    crop = RandCropByLabelClassesd(["image", "label"], "label", spatial_size=roi, num_classes=classes, num_samples=1)
    while True:
        chosen = torch.randint(len(pairs), (size,)).tolist()
        windows = [crop(pairs[i])[0] for i in chosen]
        image = torch.stack([w["image"].as_tensor() for w in windows])
        label = torch.stack([w["label"].as_tensor() for w in windows])
        scale = 1 + 0.1 * torch.randn(size, 1, 1, 1, 1)
        shift = 0.03 * torch.randn(size, 1, 1, 1, 1)
        noise = 0.02 * torch.rand(size, 1, 1, 1, 1) * torch.randn_like(image)
        yield (image * scale + shift + noise).clamp(0, 1), label


def train(args, network, pairs, roi):
    classes = network.out_channels
    loss_of = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps, pct_start=0.1)
    network.train()
    began = time.monotonic()
    for step, (image, label) in zip(range(1, args.steps + 1), batches(pairs, args.batch, roi, classes)):
        optimizer.zero_grad()
        loss = loss_of(network(image), label)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == args.steps:
            print(f"step {step:4d}  loss {loss.item():.4f}  {time.monotonic() - began:.0f} s", flush=True)


def export(network, roi, path):
    """ONNX, opset 17, with any number of windows; batch normalisation is folded into convolution."""
    network.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.onnx.export(
        network, torch.zeros(1, 1, *roi), path, dynamo=False, opset_version=17,
        input_names=["image"], output_names=["pred"],
        dynamic_axes={"image": {0: "batch"}, "pred": {0: "batch"}},
    )
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    phantoms.add_arguments(arguments)
    arguments.add_argument("--phantoms", type=int, default=64, help="how many to train on")
    arguments.add_argument("--steps", type=int, default=500)
    arguments.add_argument("--batch", type=int, default=2, help="windows per step")
    arguments.add_argument("--lr", type=float, default=4e-3)
    args = arguments.parse_args()

    set_determinism(1)
    parser = phantoms.read_config()
    roi = parser["inferer"]["roi_size"]
    network = parser.get_parsed_content("network_def")
    pairs = load(args, parser, args.phantoms)
    print(f"{args.phantoms} phantoms of shape {tuple(pairs[0]['image'].shape[1:])}, "
          f"{sum(p.numel() for p in network.parameters())} parameters", flush=True)
    train(args, network, pairs, roi)
    export(network, roi, phantoms.BUNDLE / "models" / "model.onnx")


if __name__ == "__main__":
    main()
