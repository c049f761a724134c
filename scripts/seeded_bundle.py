"""Gives a published bundle a checkpoint of random, seeded weights, in the place that its configuration names.

    python scripts/seeded_bundle.py BUNDLE [--seed 1]

Only for comparisons: what such a network finds means nothing. Needs model/requirements.txt.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "model"))
from monai_export import networks  # noqa: E402
from monai_export.configuration import Configuration  # noqa: E402
from monai_export.failure import ExportError  # noqa: E402


def seeded(bundle, seed=1):
    configuration = Configuration(bundle)
    path, _ = networks.checkpoint(configuration)
    torch.manual_seed(seed)
    network = networks.build(configuration)
    with torch.no_grad():
        # As after training: running statistics are neither 0 nor 1.
        for name, values in network.named_buffers():
            if name.endswith("running_mean"):
                values.normal_(0, 0.1)
            elif name.endswith("running_var"):
                values.uniform_(0.5, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": network.state_dict()}, path)
    return path


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    try:
        print(seeded(options.bundle, options.seed))
    except ExportError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
