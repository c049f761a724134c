"""Image sets fetched as DICOM files, compared with the imported files by pydicom and dciodvfy."""

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile

import numpy as np
import openjpeg
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.sequence import Sequence

from local import BINARY, ENVIRONMENT, SHARED, emulate, import_dicom, run

ARCHIVES = ["data/cranium_ct_dicom.zip", "data/real/enhanced_mr.zip"]
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


def command(endpoint, request, out, *flags):
    what = () if "--study" in flags else ("--image-set", request["imageSetId"])
    return [
        BINARY, "fetch", "--datastore", request["datastoreId"], *what, "--out", out,
        "--ahi-endpoint-url", endpoint, *flags,
    ]


def fetch(endpoint, request, out, *flags):
    arguments = [str(part) for part in command(endpoint, request, out, *flags)]
    return subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT | KEYS)


def read(folder):
    files = [pydicom.dcmread(path) for path in folder.rglob("*") if path.is_file()]
    return {file.SOPInstanceUID: file for file in files}


def text(value):
    """A value as text; trailing padding is ignored."""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).rstrip(b"\0 ")
    if isinstance(value, (list, pydicom.multival.MultiValue)):
        return [text(one) for one in value]
    return value if isinstance(value, (int, float)) else str(value).rstrip("\0 ")


def check_same(found, expected, where=""):
    """Every attribute is there, with its value representation and value, at any depth."""
    assert {e.tag for e in found if e.tag != 0x7FE00010} == {
        e.tag for e in expected if e.tag != 0x7FE00010 and e.tag.element != 0
    }, where
    for element in expected:
        if element.tag == 0x7FE00010 or element.tag.element == 0:
            continue
        twin, name = found[element.tag], f"{where}/{element.tag}"
        assert twin.VR == element.VR, name
        if element.VR == "SQ":
            assert len(twin.value) == len(element.value), name
            for index, (a, b) in enumerate(zip(twin.value, element.value)):
                check_same(a, b, f"{name}[{index}]")
        else:
            assert text(twin.value) == text(element.value), name


def pixels_of(file):
    """Pixels as another decoder reads them."""
    if not file.file_meta.TransferSyntaxUID.is_encapsulated:
        return file.pixel_array
    count = int(file.get("NumberOfFrames", 1))
    frames = [openjpeg.decode(frame) for frame in generate_frames(file.PixelData, number_of_frames=count)]
    assert len(frames) == count
    return np.stack(frames) if count > 1 else frames[0]


def faults(path):
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True)
    return sorted(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error"))


@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("pixels", ["decoded", "stored"])
def test_files_are_those_that_were_imported(archive, pixels, tmp_path):
    if not (SHARED / archive).exists():
        pytest.skip(f"{archive} is not there")
    with zipfile.ZipFile(SHARED / archive) as files:
        files.extractall(tmp_path / "in")
    made = json.loads(run("import", tmp_path / "in", "--folder", tmp_path / "store"))
    assert not made["failures"], made["failures"]
    with emulate(tmp_path / "store") as ahi:
        for image_set in made["imageSets"]:
            request = {"datastoreId": made["datastoreId"], "imageSetId": image_set["imageSetId"]}
            done = fetch(ahi.address, request, tmp_path / "out", "--pixels", pixels)
            assert done.returncode == 0, done.stderr
            summary = json.loads(done.stdout)["imageSets"][0]
            assert summary["instances"] == image_set["instances"]
            assert summary["frames"] == image_set["frames"]
    originals, fetched = read(tmp_path / "in"), read(tmp_path / "out")
    assert originals.keys() == fetched.keys()
    syntax = {"decoded": "1.2.840.10008.1.2.1", "stored": "1.2.840.10008.1.2.4.202"}[pixels]
    for uid, file in fetched.items():
        assert file.filename.endswith(f"{uid}.dcm")
        assert file.file_meta.TransferSyntaxUID == syntax
        assert file.file_meta.MediaStorageSOPInstanceUID == uid
        check_same(file, originals[uid])
        assert np.array_equal(pixels_of(file), originals[uid].pixel_array), uid
    # dciodvfy does not know HTJ2K.
    if shutil.which("dciodvfy") and pixels == "decoded":
        for uid in list(fetched)[:3]:
            assert faults(fetched[uid].filename) == faults(originals[uid].filename)
    if shutil.which("dcmdump"):
        for uid in list(fetched)[:3]:
            subprocess.run(["dcmdump", fetched[uid].filename], check=True, capture_output=True)


@pytest.fixture
def study(tmp_path):
    """A phantom whose slices have private sequences, with names in several alphabets and a report next to them."""
    run("phantom", "--out", tmp_path / "p", "--size", 64, "--slices", 12)
    files = sorted((tmp_path / "p/dicom").rglob("*.dcm")) or sorted(
        path for path in (tmp_path / "p/dicom").rglob("*") if path.is_file()
    )
    for path in files:
        slice_ = pydicom.dcmread(path)
        slice_.SpecificCharacterSet = "ISO_IR 100"
        slice_.PatientName = "Müller^Jörg"
        slice_.ImageComments = "größer als 5 µm"
        block = slice_.private_block(0x0029, "TEST PRIVATE", create=True)
        block.add_new(1, "OB", b"\1\2\3\4")
        block.add_new(2, "FD", [1.5, -2.25e-300])
        item = Dataset()
        inner = item.private_block(0x0031, "TEST INNER", create=True)
        inner.add_new(5, "SL", -70000)
        inner.add_new(6, "LO", "é")
        block.add_new(3, "SQ", Sequence([item]))
        block.add_new(4, "UN", b"\0\1")
        slice_.add_new(0x60020010, "US", 8)
        slice_.add_new(0x60003000, "OW", b"\1\2")
        slice_.add_new(0x60023000, "OW", b"\3\4")
        slice_.save_as(path)
    report = pydicom.dcmread(files[0])
    for keyword in ("PixelData", "Rows", "Columns", "BitsAllocated"):
        del report[keyword]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    report.SeriesInstanceUID = "2.25.2"
    report.save_as(files[0].parent / "report.dcm")
    return files[0].parent


def test_a_study_has_a_folder_for_each_series(study, tmp_path):
    made = json.loads(run("import", study, "--folder", tmp_path / "store"))
    assert not made["failures"], made["failures"]
    originals = read(study)
    uid = next(iter(originals.values())).StudyInstanceUID
    with emulate(tmp_path / "store") as ahi:
        done = fetch(ahi.address, made, tmp_path / "out", "--study", uid)
        assert done.returncode == 0, done.stderr
        unknown = fetch(ahi.address, made, tmp_path / "none", "--study", "1.2.3")
        assert unknown.returncode != 0 and "1.2.3" in unknown.stderr
    fetched = read(tmp_path / "out")
    assert originals.keys() == fetched.keys() and len(fetched) == 13
    for uid, file in fetched.items():
        assert os.path.basename(os.path.dirname(file.filename)) == file.SeriesInstanceUID
        check_same(file, originals[uid])
    assert "PixelData" not in fetched["2.25.1"]
    assert str(fetched["2.25.1"].PatientName) == "Müller^Jörg"
    # Files with names get the permissions of other files, which the umask decides.
    assert os.stat(file.filename).st_mode & 0o777 == 0o666 & ~current_mask()


def current_mask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_run_that_is_broken_off_leaves_whole_files_alone(study, tmp_path):
    made = json.loads(run("import", study, "--folder", tmp_path / "store"))
    largest = max(made["imageSets"], key=lambda s: s["frames"])
    request = {"datastoreId": made["datastoreId"], "imageSetId": largest["imageSetId"]}
    with emulate(tmp_path / "store") as ahi:
        arguments = command(ahi.address, request, tmp_path / "out", "--ahi-frames-per-second", "1",
                            "--ahi-frames-in-flight", "1")
        process = subprocess.Popen([str(a) for a in arguments], env=ENVIRONMENT | KEYS,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not list((tmp_path / "out").glob("*.dcm")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode != 0 and "interrupted" in errors
        left = list((tmp_path / "out").iterdir())
        assert left and all(path.suffix == ".dcm" for path in left), left
        assert len(left) < 12
        for path in left:
            assert pydicom.dcmread(path).pixel_array.shape == (64, 64)
    # A failed fetch leaves no incomplete file.
    broken = fetch("http://127.0.0.1:9", request, tmp_path / "gone")
    assert broken.returncode != 0
    assert not (tmp_path / "gone").exists() or not list((tmp_path / "gone").iterdir())


def test_what_cannot_be_is_refused(study, tmp_path):
    request = import_dicom(study, tmp_path / "store")
    with emulate(tmp_path / "store") as ahi:
        bad = fetch(ahi.address, request | {"imageSetId": "short"}, tmp_path / "out")
        assert bad.returncode != 0 and "imageSetId" in bad.stderr
        both = fetch(ahi.address, request, tmp_path / "out", "--image-set", "x", "--study", "1.2")
        assert both.returncode == 2
