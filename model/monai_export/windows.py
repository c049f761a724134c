"""Windows to compare networks on: of real images, or made up."""

import numpy as np
import torch

from .failure import ExportError


def made_up(channels, size, count, seed=1):
    """Windows that look like images: smooth, with large parts of one value, and noise."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(count):
        coarse = torch.randn((1, channels, *[max(2, side // 16) for side in size]), generator=generator)
        mode = "trilinear" if len(size) == 3 else "bilinear"
        smooth = torch.nn.functional.interpolate(coarse, size=tuple(size), mode=mode, align_corners=True)
        noise = torch.randn(smooth.shape, generator=generator)
        # Images are scaled to 0 … 1 by some bundles and to a mean of 0 by others.
        image = torch.clamp(0.5 + smooth, 0, 1) + 0.01 * noise
        yield (image if number % 2 == 0 else 2 * image - 1).numpy()


def of_dicom(configuration, folders, channels, size, count):
    """Windows of DICOM series, prepared as the bundle prepares them: those that differ most within."""
    image = prepared(configuration, folders, channels)
    if len(size) == 2:
        axis = configuration.get("inferer#spatial_dim", 0) or 0
        planes = np.moveaxis(image, axis + 1, 0)
        ranked = sorted(range(len(planes)), key=lambda i: -planes[i].std())
        images = [planes[i] for i in ranked[:count]]
    else:
        images = [image]
    windows = [window for image in images for window in positions(image, size)]
    windows.sort(key=lambda window: -window.std())
    # Neighbours are alike: every other one is passed over where there are enough.
    chosen = windows[::2][:count] if len(windows) >= 2 * count else windows[:count]
    return [np.ascontiguousarray(window[None]) for window in chosen]


def prepared(configuration, folders, channels):
    """An image (channels, X, Y[, Z]) as the bundle gives it to its inferer."""
    from monai.transforms import Compose, LoadImaged

    configuration.read_dicom()
    preprocessing = configuration.get("preprocessing")
    if preprocessing is None:
        raise ExportError(f"{configuration.file.name} has no preprocessing; --dicom needs one")
    steps = list(getattr(preprocessing, "transforms", [preprocessing]))
    loads = [step for step in steps if isinstance(step, LoadImaged)]
    if not loads:
        raise ExportError("the preprocessing has no LoadImaged; --dicom needs one")
    keys = [key for load in loads for key in load.keys]
    paths = [str(folder) for folder in folders]
    if len(keys) == 1 and len(paths) == channels:
        data = {keys[0]: paths if channels > 1 else paths[0]}
    elif len(keys) == len(paths):
        data = dict(zip(keys, paths))
    else:
        raise ExportError(f"--dicom: {max(len(keys), channels)} folders are wanted, one for each image, in the order "
                          f"of {', '.join(keys) if len(keys) > 1 else 'the channels'}")
    try:
        done = Compose(steps)(data)
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        raise ExportError(f"--dicom: the bundle's preprocessing fails on it: {str(error)[:400]}") from error
    image = torch.cat([torch.as_tensor(np.asarray(done[key]), dtype=torch.float32) for key in keys]).numpy()
    # Where nothing in the preprocessing puts channels first, the inferer is handed what LoadImaged gives.
    image = image if image.ndim > 3 else image[None]
    if image.shape[0] != channels:
        raise ExportError(f"--dicom: the image has {image.shape[0]} channels, the network takes {channels}")
    return image


def positions(image, size):
    """Windows of an image (channels first), each beside the next; a small image is filled up."""
    short = [max(0, side - have) for side, have in zip(size, image.shape[1:])]
    if any(short):
        image = np.pad(image, [(0, 0), *[(n // 2, n - n // 2) for n in short]])
    starts = [sorted({*range(0, have - side + 1, max(1, side // 2)), have - side})
              for side, have in zip(size, image.shape[1:])]
    for start in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, len(size)):
        yield image[(slice(None), *[slice(a, a + side) for a, side in zip(start, size)])]
