"""The image as NIfTI: the values of the DICOM files on the label map's grid, as other tools read them."""

import json

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from local import ROOT, run


def rescale(folder, slope, intercept):
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.save_as(file)


def values(folder):
    """The physical values along X, Y and Z, with slices from feet to head."""
    datasets = sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])
    planes = [d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets]
    return np.stack(planes, -1).transpose(1, 0, 2)


@pytest.mark.parametrize("slope, intercept, kind", [
    (1, -1024, np.int16), (0.25, -1000.5, np.float32), (1, 32000, np.uint16), (30, 0, np.float32),
], ids=["whole", "fractions", "beyond 16 bits with a sign", "beyond 16 bits"])
def test_the_values_are_the_sources(tmp_path, slope, intercept, kind):
    run("phantom", "--out", tmp_path, "--size", 64, "--slices", 40)
    dicom = tmp_path / "dicom"
    rescale(dicom, slope, intercept)
    flags = ("--model", ROOT / "model/ct_phantom", "--out", tmp_path / "out", "--output", "nifti,nifti-image")
    report = json.loads(run("run", dicom, *flags))
    paths = {output["kind"]: output["uri"].removeprefix("file://") for output in report["outputs"]}
    image, labels = nibabel.load(paths["nifti-image"]), nibabel.load(paths["nifti"])
    expected = values(dicom)
    assert image.get_data_dtype() == kind
    np.testing.assert_array_equal(image.get_fdata(), expected.astype(np.float32))
    np.testing.assert_array_equal(image.affine, labels.affine)
    assert image.shape == labels.shape and image.header["qform_code"] == labels.header["qform_code"] == 1
    # Also by ITK, which applies the intercept, too.
    read = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(paths["nifti-image"])).transpose(2, 1, 0)
    np.testing.assert_allclose(read, expected, rtol=1e-6)
