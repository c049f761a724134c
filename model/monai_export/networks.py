"""The network of a bundle with the weights that the bundle would run with."""

import importlib
import inspect
import pickle
import pydoc

import torch

from .configuration import relative_to_bundle
from .failure import ExportError

# Arguments that MONAI's networks no longer take and that changed nothing in their last versions.
DROPPED = {"img_size"}
# Arguments that have another name since.
RENAMED = {"pos_embed": "proj_type", "dimensions": "spatial_dims"}
# Where a checkpoint keeps the weights, beside the name in `load_dict`.
STATES = ("model", "state_dict", "model_state_dict", "network", "net")
# What wrappers put before the names of weights.
PREFIXES = ("module.", "_orig_mod.")
TORCHSCRIPT = "models/model.ts"


def load(configuration, given=None, trust=False):
    """The network in evaluation mode, and the file that its weights are of."""
    bundle = configuration.bundle
    wanted, loader = checkpoint(configuration)
    path = given or wanted
    script = bundle / TORCHSCRIPT
    if given is None and not wanted.is_file():
        # model.ts is made of model.pt, and of no other checkpoint.
        if wanted != bundle / "models/model.pt" or not script.is_file():
            beside = f" nor {TORCHSCRIPT}" if wanted == bundle / "models/model.pt" else ""
            named = f", which {loader}#load_path names" if loader else ""
            raise ExportError(f"{wanted} is not there{beside}{named}; --weights names another file")
        path = script
    if not path.is_file():
        raise ExportError(f"{path} is not there")
    network = torchscript(path) if path.suffix == ".ts" else eager(configuration, path, loader, trust)
    # TorchScript would prepare for gradients, which fails where it computes on its input first.
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval(), path


def checkpoint(configuration):
    """The checkpoint that the configuration loads, and the path of the component that does."""
    loader = configuration.loader()
    path = configuration.get(f"{loader}#load_path") if loader else None
    if path is None:
        return configuration.bundle / "models/model.pt", None
    return relative_to_bundle(configuration.bundle, path), loader


def torchscript(path):
    try:
        return torch.jit.load(path, map_location="cpu")
    except RuntimeError as error:
        raise ExportError(f"{path} cannot be loaded as TorchScript: {first_line(error)}") from error


def eager(configuration, path, loader, trust):
    network = build(configuration)
    try:
        state = torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        raise ExportError(
            f"{path} holds more than tensors ({first_line(error)}); it can run any program when it is loaded: "
            "--trust-checkpoint loads it all the same"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ExportError(f"{path} cannot be loaded: {first_line(error)}") from error
    state = weights(state, list(configuration.parser.get(f"{loader}#load_dict") or ()) if loader else [])
    strict = str(configuration.get(f"{loader}#strict", True) if loader else True).lower() not in ("false", "0")
    try:
        missing, unexpected = network.load_state_dict(state, strict=strict)
    except (RuntimeError, AttributeError, TypeError) as error:
        lines = "; ".join(line.strip() for line in str(error).splitlines()[:4])
        raise ExportError(f"{path} is no checkpoint of this network: {lines[:600]}") from error
    if missing or unexpected:
        configuration.notes.append(
            f"{loader}#strict is false: {len(missing)} weights of the network are not in the checkpoint, "
            f"{len(unexpected)} of the checkpoint not in the network"
        )
    if len(missing) == len(network.state_dict()):
        raise ExportError(f"{path} has none of the network's weights")
    return network


def weights(state, names):
    """The weights out of what a checkpoint holds, as MONAI's `CheckpointLoader` finds them."""
    if isinstance(state, dict):
        for name in [*names, *STATES]:
            if isinstance(state.get(name), dict):
                state = state[name]
                break
    if not isinstance(state, dict) or not state:
        raise ExportError("the checkpoint holds no weights by name")
    for prefix in PREFIXES:
        if all(str(name).startswith(prefix) for name in state):
            state = {name[len(prefix):]: value for name, value in state.items()}
    return state


def build(configuration):
    """The network that `network_def` (or `network`) defines."""
    parser = configuration.parser
    path = next((name for name in ("network_def", "network", "net") if name in parser), None)
    if path is None:
        raise ExportError(f"{configuration.file.name} has no network_def")
    adapt(configuration, path)
    try:
        network = parser.get_parsed_content(path)
    except Exception as error:
        why = unlocated(parser.get(f"{path}#_target_")) if isinstance(parser.get(path), dict) else None
        raise ExportError(f"{configuration.file.name}: {path}: {why or reason(error)}; {TORCHSCRIPT} may do in its "
                          f"place: --weights {TORCHSCRIPT}") from error
    if not isinstance(network, torch.nn.Module):
        raise ExportError(f"{configuration.file.name}: {path} is a {type(network).__name__} in place of a network")
    return network


def adapt(configuration, path):
    """Takes arguments out, or gives them their present names, that MONAI's class no longer takes."""
    parser = configuration.parser
    definition = parser.get(path)
    if not isinstance(definition, dict) or not isinstance(definition.get("_target_"), str):
        return
    located = located_class(definition["_target_"])
    if located is None or not located.__module__.startswith("monai."):
        return
    takes = inspect.signature(located).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values()):
        return
    given = {name for name in definition if not name.startswith("_")}
    for name in sorted(given - set(takes)):
        new = RENAMED.get(name)
        where = f"{path}#{name}: {located.__name__} of this MONAI has no such argument"
        if name in DROPPED:
            del definition[name]
            configuration.notes.append(f"{where} any more, which changed nothing in the last that had it; left out")
        elif new in takes and new not in definition:
            definition[new] = definition.pop(name)
            configuration.notes.append(f"{where} any more; {new} takes its place")
        else:
            raise ExportError(f"{where}; it takes {', '.join(takes)}. Take it out of the configuration where it "
                              f"changes nothing, or install the MONAI that the bundle's metadata names")
    parser[path] = definition


def located_class(target):
    """The class of a `_target_`, as MONAI finds it."""
    from monai.bundle import ComponentLocator

    module = ComponentLocator().get_component_module_name(target) if "." not in target else None
    if isinstance(module, list):
        module = module[0]
    try:
        located = pydoc.locate(f"{module}.{target}" if module else target)
    except pydoc.ErrorDuringImport:
        return None
    return located if inspect.isclass(located) else None


def unlocated(target):
    """Why the module of a `_target_` such as scripts.networks.unest.UNesT cannot be imported."""
    if not isinstance(target, str) or "." not in target:
        return None
    module, _, name = target.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        return f"{target} cannot be imported: {error}"
    except Exception as error:
        return f"{target} cannot be imported: {type(error).__name__}: {first_line(error)}"
    return None if hasattr(found, name) else f"{module} has no {name}"


def reason(error):
    """The innermost cause: MONAI wraps it in its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:400]
