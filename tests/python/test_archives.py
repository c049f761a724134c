"""Folders and archives as scanners and workstations write them, through the program to the result."""

import io
import json
import zipfile

import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.fileset import FileSet

from local import ROOT, emulate, import_dicom, post, run, serve

MODEL = ROOT / "model/ct_phantom"


@pytest.fixture
def slices(tmp_path):
    run("phantom", "--out", tmp_path / "phantom", "--size", 64, "--slices", 24)
    return tmp_path / "phantom/dicom"


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def put_beside(folder):
    """Adds a DICOMDIR under another name, a report, a screenshot, and files that other systems leave behind."""
    source = pydicom.dcmread(files_of(folder)[0])
    listed = FileSet()
    listed.add(source)
    listed.write(folder.parent / "disc")
    (folder / "DIRFILE").write_bytes((folder.parent / "disc/DICOMDIR").read_bytes())
    report = pydicom.dcmread(files_of(folder)[1])
    for keyword in ("PixelData", "Rows", "Columns"):
        if keyword in report:
            del report[keyword]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.67"
    report.SOPInstanceUID = "2.25.77"
    report.save_as(folder / "dose")
    screen = pydicom.dcmread(files_of(folder)[2])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient"):
        if keyword in screen:
            del screen[keyword]
    screen.SOPClassUID = screen.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    screen.SOPInstanceUID, screen.SeriesInstanceUID = "2.25.78", "2.25.79"
    screen.SamplesPerPixel, screen.PhotometricInterpretation = 3, "RGB"
    screen.PlanarConfiguration = 0
    screen.PixelData = screen.PixelData * 3
    screen.save_as(folder / "screen")
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (folder / "md5.txt").write_text("d41d8cd98f00b204e9800998ecf8427e  a\n")


def check_warnings(report):
    warnings = "\n".join(report["warnings"])
    for part in ("directory: 1", "structured report: 1", "2 file(s) that are not DICOM"):
        assert part in warnings, warnings


def test_a_disc_is_segmented(slices, tmp_path):
    clean = json.loads(run("run", slices, "--model", MODEL, "--out", tmp_path / "clean"))
    import_dicom(slices, tmp_path / "store")
    image = files_of(slices)[0]
    put_beside(slices)
    report = json.loads(run("run", slices, "--model", MODEL, "--out", tmp_path / "out"))
    check_warnings(report)
    assert "2.25.79" in "\n".join(report["warnings"])
    assert report["segments"] == clean["segments"]
    with zipfile.ZipFile(tmp_path / "disc.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(slices):
            archive.write(path, path.relative_to(slices))
    with emulate(tmp_path / "store") as ahi, serve(MODEL, ahi.address) as server:
        status, _, body = post(server.address, (tmp_path / "disc.zip").read_bytes(), Content_Type="application/zip")
        assert status == 200, body
        result = json.loads(body)["results"][0]
        check_warnings(result)
        assert result["segments"] == clean["segments"]
        # A file without preamble, prefix and file meta information, sent as a body.
        bare = pydicom.dcmread(image)
        del bare.file_meta
        bare.preamble = None
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert buffer.getvalue()[:2] == b"\x08\0"
        status, _, body = post(server.address, buffer.getvalue(), Content_Type="application/dicom")
        assert status == 200, body


# Names as their creators write them: in a character set that few programs know, behind an escape sequence, or in
# bytes that are not in the stated set. Whatever reads the result must find the same bytes and the same set.
NAMES = [
    ("ISO_IR 148", b"\xddnan\xfe^G\xfcl"),
    ("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf"),
    ("\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=  "),
    ("\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"),
    ("ISO_IR 192", "Müller^Jörg".encode()),
    ("ISO_IR 192", b"M\xfcller"),
    ("ISO_IR 100", b"M\xfcller^J\xf6rg"),
    ("ISO_IR 144", b"\xbb\xee\xda"),
    ("GB18030", "王^小东".encode("gb18030")),
    (None, b"M\xfcller"),
]


def raw(path, tag):
    """The bytes of an attribute as stored in a file, without padding."""
    found = pydicom.dcmread(path).get_item(tag)
    value = found.value if isinstance(found, RawDataElement) else None
    assert value is None or isinstance(value, bytes)
    return value.rstrip(b" ") if value else value


@pytest.mark.parametrize("sets, name", NAMES)
def test_names_keep_their_bytes(slices, tmp_path, sets, name):
    # ASCII first, then replaced byte by byte: pydicom would encode the names.
    padded = name + b" " * (len(name) % 2)
    stand_in = b"X" * len(padded)
    for path in files_of(slices):
        slice_ = pydicom.dcmread(path)
        if "SpecificCharacterSet" in slice_:
            del slice_.SpecificCharacterSet
        if sets is not None:
            slice_.SpecificCharacterSet = sets.split("\\")
        slice_.PatientName = stand_in.decode()
        slice_.save_as(path)
        content = path.read_bytes()
        assert content.count(stand_in) == 1
        path.write_bytes(content.replace(stand_in, padded))
    assert raw(files_of(slices)[0], 0x00100010) == name.rstrip(b" ")
    report = json.loads(run("run", slices, "--model", MODEL, "--out", tmp_path / "out"))
    [output] = [o for o in report["outputs"] if o["kind"] == "dicom-seg"]
    seg = output["uri"].removeprefix("file://")
    if sets == "ISO_IR 192" and name.isascii() is False and b"\xfcller" not in name:
        assert str(pydicom.dcmread(seg).PatientName) == name.decode()
    assert raw(seg, 0x00100010) == name.rstrip(b" ")
    stated = pydicom.dcmread(seg).get("SpecificCharacterSet")
    listed = [stated] if isinstance(stated, str) else list(stated or [])
    assert listed == ([] if sets is None else sets.split("\\"))
