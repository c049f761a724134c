"""Networks in f64 within little memory.

PyTorch's f64 convolutions lay out every neighbourhood of every voxel at once: tens of gigabytes for a window of
96 x 96 x 96. Here a convolution is a sum of matrix products, one for each voxel of its kernel.
"""

import copy
import itertools
import math
import os

import torch
from torch.utils._python_dispatch import TorchDispatchMode


def in_double(network, size):
    """A copy of the network in f64, for windows of a size; None where it cannot be, or would take too much memory."""
    if isinstance(network, torch.jit.ScriptModule) and neighbourhoods(network, size) > free_memory() // 2:
        return None
    try:
        return copy.deepcopy(network).double()
    except (RuntimeError, TypeError, NotImplementedError):
        return None


def neighbourhoods(network, size):
    """Bytes that the largest convolution of TorchScript, which runs as it is, may take."""
    kernels = [w.shape for w in network.state_dict().values() if w.dim() == len(size) + 2]
    return 8 * math.prod(size) * max((math.prod(shape[1:]) for shape in kernels), default=0)


def free_memory():
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Frugal(TorchDispatchMode):
    """Within it, f64 convolutions of volumes take no more memory than their results, three times."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default and not kwargs and plain(*args):
            return convolution(*args[:6])
        return function(*args, **(kwargs or {}))


def plain(image, weight, bias, stride, padding, dilation, transposed, output_padding, groups):
    return image.dtype == torch.float64 and weight.dim() == 5 and not transposed and groups == 1


def convolution(image, weight, bias, stride, padding, dilation):
    image = torch.nn.functional.pad(image, [side for n in reversed(padding) for side in (n, n)])
    kernel = weight.shape[2:]
    sizes = [(have - d * (k - 1) - 1) // s + 1 for have, k, s, d in zip(image.shape[2:], kernel, stride, dilation)]
    result = image.new_zeros((image.shape[0], weight.shape[0], *sizes))
    if bias is not None:
        result += bias.view(1, -1, 1, 1, 1)
    for sample, whole in zip(image, result):
        flat = whole.view(weight.shape[0], -1)
        for offset in itertools.product(*map(range, kernel)):
            seen = sample[(slice(None), *[slice(o * d, o * d + s * (n - 1) + 1, s)
                                          for o, d, s, n in zip(offset, dilation, stride, sizes)])]
            flat.addmm_(weight[(slice(None), slice(None), *offset)], seen.reshape(sample.shape[0], -1))
    return result
