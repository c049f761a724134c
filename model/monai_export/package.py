"""A bundle as the `model.tar.gz` that SageMaker wants: nothing above `configs` and `models`."""

import json
import tarfile
from pathlib import Path

from .onnx_file import FILE, WEIGHTS


def pack(configuration, models, archive, changed):
    """Writes the archive, with the network in the folder `models`; its own folder is made.

    With `changed`, the configuration goes in as it was changed.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    new = archive.with_name(f".{archive.name}.new")
    bundle = configuration.bundle
    try:
        with tarfile.open(new, "w:gz") as tar:
            for file in sorted((bundle / "configs").rglob("*")):
                if file.is_file() and not (changed and file == configuration.file):
                    tar.add(file, arcname=str(file.relative_to(bundle)))
            if changed:
                written = models / f".{configuration.file.name}"
                configuration.write(written)
                tar.add(written, arcname=str(configuration.file.relative_to(bundle)))
                written.unlink()
            for name in (FILE, WEIGHTS):
                if (models / name).is_file():
                    tar.add(models / name, arcname=f"models/{name}")
            serving = bundle / "serving.json"
            if serving.is_file():
                tar.add(serving, arcname="serving.json")
                for name in others(serving):
                    if (bundle / "models" / name).is_file():
                        tar.add(bundle / "models" / name, arcname=f"models/{name}")
        new.replace(archive)
    finally:
        new.unlink(missing_ok=True)


def others(serving):
    """Networks that `serving.json` names beside `model.onnx`."""
    name = json.loads(serving.read_text()).get("execution", {}).get("gpuModel")
    return [Path(name).name] if name else []
