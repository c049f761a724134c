"""A CT or MR series of HealthImaging, and a DICOM segmentation of it, as volumes for pictures.

For plain stacks of single-frame slices; the server itself reads much more (docs/images.md).
"""

import gzip
import io
import json
from concurrent.futures import ThreadPoolExecutor

import highdicom
import nibabel
import numpy as np
import pydicom
from openjpeg import decode

from progress import bar

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def metadata(ahi, datastore, image_set):
    """The metadata document of an image set."""
    answer = ahi.get_image_set_metadata(datastoreId=datastore, imageSetId=image_set)
    return json.loads(gzip.decompress(answer["imageSetMetadataBlob"].read()))


def instances(document):
    """The instances of an image set in the order of their positions."""
    [series] = document["Study"]["Series"].values()
    found = [instance["DICOM"] | {"FrameID": instance["ImageFrames"][0]["ID"]} for instance in series["Instances"].values()]
    return _in_order(found)


def frame(ahi, datastore, image_set, frame_id):
    """The stored values of a frame, which HealthImaging keeps as HTJ2K (or JPEG 2000)."""
    answer = ahi.get_image_frame(
        datastoreId=datastore, imageSetId=image_set, imageFrameInformation={"imageFrameId": frame_id})
    return decode(answer["imageFrameBlob"].read())


def volume(ahi, datastore, image_set):
    """The image set as a NIfTI image: axes X, Y, Z of the slices, values after rescaling (HU for CT)."""
    slices = instances(metadata(ahi, datastore, image_set))

    def values(one):
        stored = frame(ahi, datastore, image_set, one["FrameID"])
        return stored * float(one.get("RescaleSlope") or 1) + float(one.get("RescaleIntercept") or 0)

    with ThreadPoolExecutor(8) as pool:
        frames = list(bar(pool.map(values, slices), total=len(slices), desc="frames"))
    return _stacked(frames, slices)


def of_files(folder):
    """The same from the DICOM files of a series."""
    slices = _in_order([pydicom.dcmread(file) for file in folder.iterdir()])
    values = [one.pixel_array * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0)) for one in slices]
    return _stacked(values, slices)


def nifti(content):
    """A NIfTI file (`.nii.gz`) that a server made."""
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content))


def segmentation(content, slices):
    """A DICOM SEG as a label map on the grid of the series' slices, and the label of each value."""
    seg = highdicom.seg.segread(io.BytesIO(content))
    frames = seg.get_pixels_by_source_instance(
        [one["SOPInstanceUID"] for one in slices], combine_segments=True, relabel=False, assert_missing_frames_are_empty=True)
    labels = {number: seg.get_segment_description(number).segment_label for number in seg.segment_numbers}
    return nibabel.Nifti1Image(frames.transpose(2, 1, 0).astype(np.uint8), affine(slices)), labels


def affine(slices):
    """Voxel indices to RAS millimetres."""
    first, last = (_numbers(one, "ImagePositionPatient") for one in (slices[0], slices[-1]))
    along_row, along_column = _numbers(slices[0], "ImageOrientationPatient").reshape(2, 3)
    between_rows, between_columns = _numbers(slices[0], "PixelSpacing")
    step = (last - first) / max(1, len(slices) - 1)
    lps = np.eye(4)
    lps[:3] = np.column_stack([along_row * between_columns, along_column * between_rows, step, first])
    return LPS_TO_RAS @ lps


def _in_order(slices):
    def along(one):
        return _numbers(one, "ImagePositionPatient") @ np.cross(*_numbers(one, "ImageOrientationPatient").reshape(2, 3))

    return sorted(slices, key=along)


def _stacked(frames, slices):
    return nibabel.Nifti1Image(np.stack(frames).transpose(2, 1, 0).astype(np.float32), affine(slices))


def _numbers(one, keyword):
    """The numbers of an attribute, which HealthImaging has as text."""
    return np.array([float(value) for value in one.get(keyword)])
