"""The synthetic CT as other DICOM readers see it."""

import json
import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from local import BINARY, ENVIRONMENT


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "out"
    command = [BINARY, "phantom", "--out", folder, "--seed", "11", "--size", "64", "--slices", "40"]
    printed = subprocess.run([*command, "--spacing", "5", "--slice-spacing", "6"], check=True, stdout=subprocess.PIPE, env=ENVIRONMENT).stdout
    about = json.loads((folder / "phantom.json").read_text())
    assert json.loads(printed) == about | {"folder": str(folder)}
    return folder, about


def images(folder):
    """The images, from feet to head."""
    read = [pydicom.dcmread(path) for path in (folder / "dicom").iterdir()]
    return sorted(read, key=lambda image: image.ImagePositionPatient[2])


def test_pydicom_reads_the_ct_and_numpy_the_truth(phantom):
    folder, about = phantom
    slices = images(folder)
    truth = np.load(folder / "truth.npy")
    assert truth.shape == tuple(about["shape"]) == (64, 64, 40)
    assert truth.dtype == np.uint8
    hu = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices], axis=-1)
    hu = hu.transpose(1, 0, 2)
    assert hu.min() >= -1024 and hu.max() <= 3071
    first, second = (np.array(s.ImagePositionPatient, float) for s in slices[:2])
    affine = np.array(about["affine"])
    np.testing.assert_allclose(affine[:3, 3], first * [-1, -1, 1])
    np.testing.assert_allclose(affine[:3, 2], (second - first) * [-1, -1, 1])
    for entry in about["labels"]:
        organ = hu[truth == entry["label"]]
        assert organ.size == entry["voxels"] > 0
        assert 20 < np.median(organ) < 100, entry["name"]


def test_slices_are_numbered_from_the_head(phantom):
    slices = images(phantom[0])
    assert [s.InstanceNumber for s in slices] == list(range(40, 0, -1))


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy of dicom3tools")
def test_dciodvfy_finds_no_errors(phantom):
    for path in (phantom[0] / "dicom").iterdir():
        checked = subprocess.run(["dciodvfy", path], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        errors = [line for line in checked.stdout.splitlines() if line.startswith("Error")]
        assert not errors and checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "flags", [["--size", "8"], ["--spacing", "0"], ["--spacing", "nan"], ["--slices", "1"], ["--seed", "x"]]
)
def test_impossible_phantoms_are_refused(tmp_path, flags):
    refused = subprocess.run([BINARY, "phantom", "--out", tmp_path / "out", *flags], capture_output=True, env=ENVIRONMENT)
    assert refused.returncode == 2
    assert flags[0].encode() in refused.stderr
    assert not (tmp_path / "out").exists()
