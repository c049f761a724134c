"""Creates small bundles for test_export.py in the given folder. Run by a Python that has PyTorch and MONAI."""

import json
import sys
from pathlib import Path

import torch
from monai.networks.nets import SwinUNETR, UNet

SIZE = 32
UNET = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
METADATA = {"name": "case", "version": "1", "network_data_format": {
    "inputs": {"image": {"type": "image", "modality": "CT", "num_channels": 1, "spatial_shape": [SIZE] * 3,
                         "dtype": "float32", "channel_def": {"0": "image"}}},
    "outputs": {"pred": {"type": "image", "format": "segmentation", "num_channels": 2, "spatial_shape": [SIZE] * 3,
                         "channel_def": {"0": "background", "1": "organ"}}}}}
OWN = """
import torch

class Own(torch.nn.Module):
    def __init__(self, out_channels):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, out_channels, 3, padding=1)
        self.norm = torch.nn.GroupNorm(1, out_channels)

    def forward(self, image):
        return self.norm(self.conv(image)), image
"""


def bundle(folder, network_def, roi=SIZE, metadata=METADATA, **config):
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": roi, "sw_batch_size": 2}
    content = {"imports": ["$import not_installed_anywhere"], "bundle_root": ".",
               "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
               "network_def": network_def, "inferer": inferer} | config
    (folder / "configs/inference.json").write_text(json.dumps(content, indent=4))
    if metadata:
        (folder / "configs/metadata.json").write_text(json.dumps(metadata))
    return folder


class First(torch.nn.Module):
    """Computes on its input before the first layer that has weights."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, image):
        return [self.conv((image - image.mean()) / (image.std() + 1))]


def main(root):
    torch.manual_seed(1)
    unet = UNet(**UNET)
    state = unet.state_dict()
    target = {"_target_": "UNet"} | UNET

    own = bundle(root / "own", {"_target_": "scripts.networks.own.Own", "out_channels": 2})
    (own / "scripts/networks").mkdir(parents=True)
    for name in ("scripts/__init__.py", "scripts/networks/__init__.py"):
        (own / name).write_text("")
    (own / "scripts/networks/own.py").write_text(OWN)
    namespace = {}
    exec(OWN, namespace)
    torch.save(namespace["Own"](2).state_dict(), own / "models/model.pt")

    swin = {"in_channels": 1, "out_channels": 2, "feature_size": 12, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2]}
    old = bundle(root / "old", {"_target_": "SwinUNETR", "img_size": 32, **swin}, roi=[64, 32, 32])
    torch.save({"state_dict": SwinUNETR(**swin).state_dict()}, old / "models/model.pt")
    unknown = bundle(root / "unknown", target | {"colour": "red"})
    torch.save(state, unknown / "models/model.pt")

    loader = {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/' + @modelname", "load_dict": {"model": "@network"}}
    low = bundle(root / "low", target, shown={"highres": True},
                 modelname="$'model.pt' if @shown#highres else 'model_lowres.pt'", network="$@network_def.to(@device)", checkpointloader=loader)
    torch.save({"model": state}, low / "models/model.pt")
    torch.save({"model": {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}},
               low / "models/model_lowres.pt")
    missing = bundle(root / "missing", target, modelname="other.pt", checkpointloader=loader, network="$@network_def")
    torch.jit.script(unet).save(str(missing / "models/model.ts"))

    parallel = bundle(root / "parallel", target, metadata=None)
    torch.save({"model": {f"module.{name}": value for name, value in state.items()}}, parallel / "models/model.pt")

    script = bundle(root / "script", {"_target_": "NoSuchNetwork"}, roi=[SIZE] * 3)
    torch.jit.script(First()).save(str(script / "models/model.ts"))

    broken = bundle(root / "broken", target)
    torch.save({name: value * float("nan") if value.is_floating_point() else value for name, value in state.items()}, broken / "models/model.pt")
    cut = bundle(root / "cut", target)
    torch.save(state, cut / "models/model.pt")
    whole = (cut / "models/model.pt").read_bytes()
    (cut / "models/model.pt").write_bytes(whole[: len(whole) // 2])
    other = bundle(root / "other", target | {"channels": [8, 16]})
    torch.save(state, other / "models/model.pt")
    size = bundle(root / "size", target, roi=[-1, -1, 32], metadata=None)
    torch.save(state, size / "models/model.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
