"""Frames encoded by OpenJPH (with imagecodecs), imported and fetched: every pixel is unchanged."""

import itertools
import json

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import generate_uid

from local import emulate, run
from test_fetch import fetch, read

imagecodecs = pytest.importorskip("imagecodecs", reason="there is no wheel of it with HTJ2K for this Python")

HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
SIZES = [(1, 1), (1, 90), (67, 1), (3, 70), (64, 64), (65, 33), (130, 201)]


def content(kind, shape, low, high, random):
    """An image with values from low to high."""
    rows, columns = np.indices(shape)
    if kind == "noise":
        return random.integers(low, high, shape, endpoint=True)
    if kind == "smooth":
        ramp = (rows * 3 + columns * 2 + random.integers(0, 3, shape)) % 512
        return low + ramp * (high - low) // 511
    if kind == "sparse":
        return np.where(random.random(shape) < 0.02, high, low)
    return np.where((rows // 2 + columns // 2) % 2 == 0, low, high)


def cases():
    """Images of every depth and sign, with their encoding options."""
    random = np.random.default_rng(16)
    levels, sizes = itertools.cycle([1, 2, 5, 6, 0, 3]), itertools.cycle(SIZES)
    for depth, signed in itertools.product(range(1, 17), (False, True)):
        low, high = (-(1 << depth - 1), (1 << depth - 1) - 1) if signed else (0, (1 << depth) - 1)
        for kind in ("noise", "smooth", "sparse", "extremes"):
            dtype = np.dtype(f"{'i' if signed else 'u'}{1 if depth <= 8 else 2}")
            image = content(kind, next(sizes), low, high, random).astype(dtype)
            options = {"resolutions": next(levels), "tlm": kind == "sparse", "tilepart": int(kind == "smooth")}
            if kind == "extremes":
                options["tile"] = (32, 32)
            yield depth, signed, image, options


def write(template, path, depth, signed, image, stream):
    """A DICOM file with one frame, in its own series."""
    file = pydicom.dcmread(template)
    file.SeriesInstanceUID = generate_uid()
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    file.file_meta.TransferSyntaxUID = HTJ2K_LOSSLESS
    file.Rows, file.Columns = image.shape
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * image.itemsize, depth, depth - 1
    file.PixelRepresentation = int(signed)
    for name in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
        if name in file:
            delattr(file, name)
    file.PixelData = encapsulate([stream])
    file["PixelData"].VR = "OB"
    file.save_as(path)
    return file.SOPInstanceUID


def test_frames_of_openjph_are_exact(tmp_path):
    run("phantom", "--out", tmp_path / "phantom", "--size", 16, "--slices", 2)
    template = next((tmp_path / "phantom/dicom").rglob("*.dcm"))
    study = pydicom.dcmread(template).StudyInstanceUID
    (tmp_path / "in").mkdir()
    images = {}
    for number, (depth, signed, image, options) in enumerate(cases()):
        stream = imagecodecs.htj2k_encode(image, reversible=True, **options)
        assert np.array_equal(imagecodecs.htj2k_decode(stream), image), "OpenJPH does not read what it wrote"
        images[write(template, tmp_path / f"in/{number:03}.dcm", depth, signed, image, stream)] = image
    made = json.loads(run("import", tmp_path / "in", "--folder", tmp_path / "store"))
    assert not made["failures"], made["failures"]
    with emulate(tmp_path / "store") as ahi:
        done = fetch(ahi.address, made, tmp_path / "out", "--study", study, "--pixels", "decoded")
        assert done.returncode == 0, done.stderr
    fetched = read(tmp_path / "out")
    assert fetched.keys() == images.keys()
    for uid, image in images.items():
        # pydicom returns single bits as bytes as well.
        found = fetched[uid].pixel_array
        assert found.shape == image.shape and np.array_equal(found, image), f"{fetched[uid].BitsStored} bits, {image.shape}"
    print(f"{len(images)} images of OpenJPH are exact")
