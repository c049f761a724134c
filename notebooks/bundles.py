"""Packs MONAI bundles as SageMaker wants them."""

import io
import json
import tarfile
from pathlib import Path


def pack(bundle, archive, serving=None):
    """A bundle's folder as a tar.gz, with nothing above `configs` and `models`; `serving` takes the place of its
    serving.json."""
    archive = Path(archive)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(Path(bundle).rglob("*")):
            name = path.relative_to(bundle)
            # Hidden folders hold what a server found out about the model on one machine.
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                if serving is None or str(name) != "serving.json":
                    tar.add(path, str(name))
        if serving is not None:
            content = json.dumps(serving, indent=2).encode()
            entry = tarfile.TarInfo("serving.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive
