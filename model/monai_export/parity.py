"""How far ONNX Runtime is from the network in f64, beside how far PyTorch is."""

import contextlib

import numpy as np
import onnxruntime
import torch

from .double import Frugal, in_double
from .failure import ExportError
from .onnx_file import first_of
from .progress import step

# Relative to the largest value: a few of f32's last digits, which any order of summation costs.
NEGLIGIBLE = 1e-5
# Below this difference of the two best classes a label is a tie.
TIE = 1e-3


def measure(network, path, windows, batch, factor):
    """A report over windows (1, channels, X, Y[, Z]), and whether ONNX Runtime is as good as PyTorch.

    It is as good where its largest error against f64 is at most `factor` times PyTorch's own, or negligible.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    runtime = lambda image: session.run(["pred"], {"image": image})[0]
    reference, dtype = reference_of(network, windows[0])
    errors = {"onnxRuntime": Errors(), "pytorch": Errors()}
    largest, results = 0.0, []
    for number, window in enumerate(windows, 1):
        with step(f"comparing window {number} of {len(windows)}"):
            exact = forward(reference, window, dtype)
            found = runtime(window)
            if found.shape != exact.shape:
                raise ExportError(f"ONNX Runtime gives {found.shape}, PyTorch {exact.shape}")
            errors["onnxRuntime"].add(exact, found)
            errors["pytorch"].add(exact, forward(network, window))
            largest = max(largest, float(np.abs(exact).max()))
            results.append(found)
    ours, theirs = errors["onnxRuntime"], errors["pytorch"]
    report = {"reference": "f64" if dtype == torch.float64 else "f32", "windows": len(windows), "largestValue": largest,
              **{name: error.report() for name, error in errors.items()}}
    negligible = NEGLIGIBLE * max(1.0, largest)
    good = ours.largest <= max(factor * theirs.largest, negligible)
    if batch > 1:
        with step(f"comparing a batch of {batch}"):
            report["batch"], same = in_a_batch(network, runtime, windows, results, batch, max(ours.largest, negligible))
        good &= same
    return report, bool(good)


def in_a_batch(network, runtime, windows, results, batch, tolerance):
    """Whether windows in a batch give what they give one by one, or else what PyTorch gives for the batch."""
    chosen = [number % len(windows) for number in range(batch)]
    images = np.concatenate([windows[number] for number in chosen])
    together = runtime(images)
    alone = np.concatenate([results[number] for number in chosen])
    if together.shape != alone.shape:
        raise ExportError(f"a batch of {batch} gives {together.shape}, its windows one by one {alone.shape}")
    difference = float(np.abs(together - alone).max())
    report = {"size": batch, "largestDifference": difference}
    if difference <= tolerance:
        return report, True
    # Such as one that subtracts the mean of all it is given.
    report["mixesWindows"] = True
    report["fromPytorch"] = float(np.abs(together - forward(network, images)).max())
    return report, report["fromPytorch"] <= tolerance


def reference_of(network, window):
    """The network in f64; or itself, where it computes in f32 whatever it is given."""
    double = in_double(network, window.shape[2:])
    try:
        if double is not None and forward(double, window, torch.float64).dtype == np.float64:
            return double, torch.float64
    except (RuntimeError, TypeError, NotImplementedError):
        pass
    return network, torch.float32


def forward(network, window, dtype=torch.float32):
    frugal = Frugal() if dtype == torch.float64 else contextlib.nullcontext()
    with torch.no_grad(), frugal:
        # Some networks write into what they are given.
        return first_of(network(torch.from_numpy(window.copy()).to(dtype))).numpy()


class Errors:
    """The largest error, and the voxels whose label another class takes."""

    def __init__(self):
        self.largest, self.voxels, self.others, self.clear = 0.0, 0, 0, 0

    def add(self, exact, found):
        error = float(np.abs(found - exact).max())
        if not np.isfinite(error):
            raise ExportError("the network gives values that are no numbers")
        self.largest = max(self.largest, error)
        if exact.shape[1] == 1:
            other, gap = (exact > 0) != (found > 0), np.abs(exact)
        else:
            other = (exact.argmax(1) != found.argmax(1))[:, None]
            best = np.partition(exact, exact.shape[1] - 2, axis=1)
            gap = best[:, -1:] - best[:, -2:-1]
        self.voxels += other.size
        self.others += int(other.sum())
        self.clear += int((other & (gap >= TIE)).sum())

    def report(self):
        return {"largestError": self.largest, "voxels": self.voxels, "otherLabels": self.others,
                "otherLabelsBeyondTies": self.clear}
