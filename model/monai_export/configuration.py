"""A bundle's configuration, as far as the export needs it: what MONAI itself would run."""

import json
import sys
from pathlib import Path

from monai.bundle import ConfigParser

from .failure import ExportError

MAIN_FILES = ("inference.json", "inference.yaml", "inference.yml")
METADATA = "metadata.json"


class Configuration:
    """`configs/inference.*` and `configs/metadata.json`, with overrides."""

    def __init__(self, bundle, overrides=()):
        self.bundle = bundle.resolve()
        self.notes = []
        if not self.bundle.is_dir():
            raise ExportError(f"{bundle} is no folder")
        found = [self.bundle / "configs" / name for name in MAIN_FILES]
        self.file = next((path for path in found if path.is_file()), None)
        if self.file is None:
            raise ExportError(f"{bundle}/configs has none of {', '.join(MAIN_FILES)}")
        # Bundles bring networks of their own, which their configuration names as scripts.….
        sys.path.insert(0, str(self.bundle))
        self.raw = ConfigParser.load_config_file(self.file)
        for path, value in overrides:
            override(self.raw, path, value)
        self.parser = ConfigParser()
        self.parser.read_config(self.raw)
        metadata = self.bundle / "configs" / METADATA
        if metadata.is_file():
            self.parser.read_meta(metadata)
        else:
            self.notes.append(f"configs/{METADATA} is missing: channels and sizes are those of the configuration")
        self.parser["bundle_root"] = str(self.bundle)
        self.parser["device"] = "$torch.device('cpu')"
        self.drop_imports_that_fail()

    def drop_imports_that_fail(self):
        """An import that the network does not need may fail, such as of what reads the bundle's data set."""
        statements = self.parser.get("imports") or []
        kept = []
        for statement in statements if isinstance(statements, list) else [statements]:
            try:
                exec(str(statement).lstrip("$"), {})
            except ImportError as error:
                self.notes.append(f"{statement}: {error}; left out")
            else:
                kept.append(statement)
        if "imports" in self.parser:
            self.parser["imports"] = kept

    def get(self, path, default=None):
        """The value at a path such as `inferer#roi_size`, resolved; the default where there is none."""
        if path not in self.parser:
            return default
        try:
            return self.parser.get_parsed_content(path)
        except Exception as error:
            raise ExportError(f"{self.file.name}: {path}: {error}") from error

    def described(self):
        """What the metadata says of the network's input."""
        inputs = (self.parser.get("_meta_") or {}).get("network_data_format", {}).get("inputs", {})
        return next(iter(inputs.values()), {})

    def channels(self, network):
        """Channels of the network's input."""
        for value in (self.described().get("num_channels"), self.get("network_def#in_channels")):
            if isinstance(value, int) and value > 0:
                return value
        for name, weight in network.state_dict().items():
            if weight.dim() in (4, 5):
                self.notes.append(f"{weight.shape[1]} channels, as {name} has them")
                return weight.shape[1]
        raise ExportError("how many channels the network takes is nowhere said; configs/metadata.json should")

    def dimensions(self):
        """Spatial dimensions of a window."""
        if str(self.parser.get("inferer#_target_", "")).endswith("SliceInferer"):
            return 2
        described = self.described().get("spatial_shape")
        if isinstance(described, list) and len(described) in (2, 3):
            return len(described)
        return self.get("network_def#spatial_dims") or 3

    def window(self, given=None):
        """Size of a window of the bundle's inferer."""
        if given:
            return list(given)
        dimensions = self.dimensions()
        described = self.described().get("spatial_shape")
        if not isinstance(described, list) or len(described) != dimensions:
            described = [None] * dimensions
        size = self.get("inferer#roi_size")
        where = f"{self.file.name}: inferer#roi_size"
        if size is None:
            size, where = described, f"{METADATA}: spatial_shape"
        elif isinstance(size, (int, float)):
            size = [size] * dimensions
        size = list(size)
        # As in MONAI, an axis without a size of its own is as long as the image.
        whole = [not is_size(side) for side in size]
        size = [other if open_ else side for open_, side, other in zip(whole, size, [*described, None, None, None])]
        if not all(map(is_size, size)):
            raise ExportError(
                f"{where} does not fix the size of a window ({size}); say which size the network is to take with "
                "--window, such as --window 96 96 96: images then have to have it"
            )
        return [int(side) for side in size]

    def batch(self):
        """Windows in a batch."""
        return max(1, int(self.get("inferer#sw_batch_size") or 1))

    def loader(self):
        """Path of the component that loads the checkpoint, where there is one."""
        if "checkpointloader" in self.parser:
            return "checkpointloader"
        enabled = (path for path, item in components(self.parser.get(), "CheckpointLoader") if item.get("_disabled_") is not True)
        return next(enabled, None)

    def read_dicom(self):
        """Lets the preprocessing load folders of DICOM files: which reader does is the caller's to say."""
        config = self.parser.get()
        for _, item in components(config, "LoadImaged"):
            item["reader"] = "PydicomReader"
        self.parser.set(config)

    def write(self, path):
        """Writes the configuration with its overrides, in the form of its file."""
        form = "json" if self.file.suffix == ".json" else "yaml"
        if form == "json":
            path.write_text(json.dumps(self.raw, indent=4) + "\n")
        else:
            ConfigParser.export_config_file(self.raw, str(path), fmt=form)


def is_size(side):
    return isinstance(side, (int, float)) and not isinstance(side, bool) and side >= 1


def components(config, name, path=""):
    """Paths and definitions of the components of a class in a configuration."""
    below = lambda key: f"{path}#{key}" if path else str(key)
    if isinstance(config, dict):
        target = config.get("_target_")
        if isinstance(target, str) and target.split(".")[-1] == name:
            yield path, config
        for key, value in config.items():
            yield from components(value, name, below(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            yield from components(value, name, below(index))


def parse_override(text):
    """`PATH=VALUE`, the value as JSON or else a string."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ExportError(f"--set {text}: PATH=VALUE is wanted, such as displayable_configs#highres=false")
    try:
        return path.replace("::", "#"), json.loads(value)
    except json.JSONDecodeError:
        return path.replace("::", "#"), value


def override(config, path, value):
    """Sets what is there already; a path that is not is a mistake."""
    *parents, last = path.split("#")
    place = config
    try:
        for key in parents:
            place = place[int(key)] if isinstance(place, list) else place[key]
        key = int(last) if isinstance(place, list) else last
        place[key]
    except (KeyError, IndexError, ValueError, TypeError):
        raise ExportError(f"--set {path}: the configuration has no such entry") from None
    place[key] = value


def relative_to_bundle(bundle, path):
    """A path of the configuration; MONAI resolves it against the bundle's folder, where bundles are run."""
    path = Path(str(path))
    return path if path.is_absolute() else bundle / path


