#!/usr/bin/env python3
"""Seeds for the fuzz targets: small files of every kind, and parts of the reference material.

    fuzz-seeds.py FOLDER [SHARED]

writes FOLDER/TARGET/*, also from the bundles and images in SHARED if it is there.
"""

import gzip
import io
import json
import struct
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "python"))
import hostile_inputs as make  # noqa: E402

LARGEST = 60_000


def frame(which, rows, columns, data, bits=16, stored=None, signed=False):
    """A frame as `src/fuzzing.rs` reads it: index of the syntax in its family, format, data."""
    flags = (bits == 16) | signed << 1
    return bytes([which, flags, (stored or bits) - 1, 0]) + struct.pack("<HH", rows, columns) + data


def family(name):
    """The target for a hostile frame of this name."""
    if name.endswith(("ht", "htj2k")):
        return "codec_htj2k"
    if "jpeg-" in name:
        return "codec_jpeg"
    return "codec_rle" if "rle" in name else "codec_jpeg2000"


def codecs():
    for side in (2, 64):
        yield "codec_native", frame(1, side, side, bytes(range(256)) * 32 if side == 64 else bytes(8))
    yield "codec_native", frame(0, 3, 3, bytes(10), bits=8)
    yield "codec_rle", frame(0, 16, 16, make.rle(2, b"\x81\x07" + b"\x81\x09"))
    yield "codec_rle", frame(0, 4, 4, make.rle(1, b"\x0f" + bytes(range(16))), bits=8)
    for which, sof in ((0, 0xC0), (1, 0xC1), (1, 0xC2)):
        yield "codec_jpeg", frame(which, 16, 16, make.jpeg(16, 16, sof=sof), bits=8)
    yield "codec_jpeg", frame(3, 8, 8, make.jpeg(8, 8, sof=0xC3, precision=16))
    for target, ht in (("codec_jpeg2000", False), ("codec_htj2k", True)):
        for form in ({}, {"levels": 0}, {"tile": (32, 32), "levels": 1}, {"layers": 3, "data": bytes(18)}):
            stream = make.codestream(64, 64, ht=ht, **form)
            yield target, frame(0, 64, 64, stream, signed=True)
    for generator in (make.huge_frames, make.heavy_codestreams):
        for name, _, data in generator():
            start = data.find(make.item(b"") + make.item(b"")[:4])
            if start > 0 and len(data) < LARGEST:
                length = struct.unpack_from("<I", data, start + 12)[0]
                side = 65535 if "huge" in name else 4096
                bits = 8 if "jpeg-" in name and "lossless" not in name else 16
                data = data[start + 16 : start + 16 + length]
                yield family(name), frame(0, side, side, data, bits, signed=True)


def dicom():
    yield make.good_image()
    yield make.good_image(make.IMPLICIT)
    explicit, implicit = make.even(make.EXPLICIT), make.even(make.IMPLICIT)
    for name, frame_data in (("jpeg2000", make.codestream(64, 64)), ("rle", make.rle(2, b"\x81\0" * 32))):
        body = make.image() + make.encapsulated(frame_data)
        yield make.file_meta(make.even(make.CODECS[name])) + body
    for is_implicit in (False, True):
        for defined in (False, True):
            sequences = make.nested(5, is_implicit, defined)
            yield make.file_meta(implicit if is_implicit else explicit) + sequences
    two = make.image(frames=2) + make.encapsulated(b"\xff\xd8ab\xff\xd9", b"\xff\xd8cdef\xff\xd9")
    yield make.file_meta(make.even(make.CODECS["jpeg-baseline"])) + two
    for _, _, data in make.nested_sequences(depth=40):
        if len(data) < LARGEST:
            yield data


def archives():
    yield make.good_zip()
    yield make.good_tar()
    yield gzip.compress(make.good_tar(1), mtime=0)
    image = make.good_image()[:600]
    yield make.zip_archive([(b"a", 0, image, len(image), 0, {})])
    yield make.tar_entry(b"L", b"name/" * 30, b"L") + make.tar_entry(b"a", image) + make.TAR_END
    yield make.tar_entry(b"x", b"13 path=a/b/\n", b"x") + make.tar_entry(b"a", image) + make.TAR_END
    for generator in (make.gzip_bombs, make.zip_bombs):
        yield from (data for _, _, data in generator() if len(data) < LARGEST)


def metadata():
    instance = {
        "DICOM": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Rows": 64, "Columns": 64, "PixelRepresentation": 1,
                  "ImagePositionPatient": ["0", "-1.5 ", "2e1"], "RescaleSlope": "1 ", "(0009,1010)": "AAE=",
                  "SmallestImagePixelValue": -5, "ReferencedImageSequence": [{"ReferencedSOPInstanceUID": "1.2"}]},
        "DICOMVRs": {"(0009,1010)": "OB"}, "StoredTransferSyntaxUID": "1.2.840.10008.1.2.4.202", "ChecksumType": "CRC32",
        "ImageFrames": [{"ID": "0" * 32, "MinPixelValue": 0, "MaxPixelValue": 5, "FrameSizeInBytes": 9,
                         "PixelDataChecksumFromBaseToFullResolution": [{"Width": 64, "Height": 64, "Checksum": 1}]}],
    }  # fmt: skip
    series = {"DICOM": {"Modality": "CT"}, "Instances": {"1.2.3.4": instance}}
    document = {
        "SchemaVersion": "1.1", "DatastoreID": "d" * 32, "ImageSetID": "i" * 32,
        "Patient": {"DICOM": {"PatientName": "A^B", "PatientBirthDate": None}},
        "Study": {"DICOM": {"StudyInstanceUID": "1.2.3"}, "Series": {"1.2.3.5": series}},
    }  # fmt: skip
    text = json.dumps(document).encode()
    yield text
    yield gzip.compress(text, mtime=0)


def requests():
    images = {"T1": {"datastoreId": "d" * 32, "imageSetId": "i" * 32, "versionId": "1"}, "T2": {"s3Uri": "s3://b/k"}}
    inputs = [{"datastoreId": "d" * 32, "imageSetId": "i" * 32}, {"images": images}, {"images": list(images.values())},
              {"datastoreId": "d" * 32, "studyInstanceUID": "1.2", "seriesInstanceUID": "1.2.3"}]  # fmt: skip
    options = {"model": "m", "outputs": ["dicom-seg", "nifti"], "segmentation": {"transferSyntax": "rle"},
               "outputS3Uri": "s3://b/p"}
    for body in ({"inputs": inputs, **options}, {**inputs[0], **options}, {"s3Uri": "s3://b/k.json"}):
        yield json.dumps(body).encode()


EXPRESSIONS = [
    "@a + [1, 2]", "[x * 2 for x in range(10) if x % 2]", "lambda x: x > 0.5", "{'a': 1, **@b}", "@b#c[0]",
    "'a' + 'b' * 3 if @a[3] is None else -2 ** -1", "dict(a=1, b=(1, 2))", "torch.device('cuda:0')", "x[1:2, ::3]",
    "not 1 < 2 <= 3 or 'x' in 'xyz'", "max(1, 2.5) // 2", "p.join('a', 'b')", "{k: v for k, v in [('a', 1)]}",
]  # fmt: skip


def bundles(shared):
    serving = {"segments": [{"label": "spleen", "color": [1, 2, 3]}], "outputs": ["dicom-seg"], "segmentation": {"transferSyntax": "native"},
               "images": [{"name": "T1c", "conditions": {"SeriesDescription": "t1.*(ce|\\+c)"}}]}  # fmt: skip
    folders = [ROOT / "model" / "ct_phantom"]
    folders += sorted((shared / "bundles").iterdir()) if (shared / "bundles").is_dir() else []
    for folder in folders:
        texts = [folder / "configs" / name for name in ("inference.json", "metadata.json")]
        if all(text.exists() for text in texts):
            parts = [json.dumps(json.loads(text.read_bytes())).encode() for text in texts]
            yield b"\0".join([*parts, json.dumps(serving).encode()])
    yield b'{"a": "@b", "b": ["@c", "@c"], "c": "%a", "preprocessing": "$@a"}\0{}\0{}'


def real_images(shared):
    """Headers of real files, and those of their frames that are small."""
    for path in sorted((shared / "data" / "real").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in sorted(n for n in archive.namelist() if n.endswith(".dcm"))[:12]:
                data = archive.read(name)
                at = data.rfind(b"\xe0\x7f\x10\x00")
                yield "dicom", data[: at + 2000 if at > 0 else LARGEST]


def main():
    folder = Path(sys.argv[1])
    shared = Path(sys.argv[2]) if len(sys.argv) > 2 else ROOT.parent / "shared"
    seeds = list(codecs()) + list(real_images(shared))
    lines = b"\n".join(requests())
    for target, made in (
        ("dicom", dicom()), ("archive", archives()), ("ahi_metadata", metadata()), ("request_json", requests()),
        ("request_lines", [lines]), ("bundle_config", bundles(shared)),
        ("bundle_expression", (text.encode() for text in EXPRESSIONS)),
    ):  # fmt: skip
        seeds += ((target, data) for data in made)
    counts = {}
    for target, data in seeds:
        counts[target] = counts.get(target, 0) + 1
        path = folder / target / f"{counts[target]:04}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[:LARGEST])
    print(", ".join(f"{target} {count}" for target, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
