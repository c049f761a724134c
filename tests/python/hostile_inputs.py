"""Hostile inputs, generated in seconds and always the same: what a server must refuse and survive.

Each generator yields `(name, content_type, bytes)`; `all_inputs()` yields all of them, one at a time, since some
are 64 MiB. Only the standard library is needed.
"""

import functools
import gzip
import io
import itertools
import json
import struct
import tarfile
import zipfile
import zlib

DICOM, ZIP, TAR, GZIP = (f"application/{kind}" for kind in ("dicom", "zip", "x-tar", "gzip"))
JSON, LINES = "application/json", "application/jsonlines"
BODY = 64 << 20

IMPLICIT = b"1.2.840.10008.1.2"
EXPLICIT = b"1.2.840.10008.1.2.1"
BIG_ENDIAN = b"1.2.840.10008.1.2.2"
DEFLATED = b"1.2.840.10008.1.2.1.99"
CODECS = {
    "native": EXPLICIT,
    "rle": b"1.2.840.10008.1.2.5",
    "jpeg-baseline": b"1.2.840.10008.1.2.4.50",
    "jpeg-extended": b"1.2.840.10008.1.2.4.51",
    "jpeg-lossless": b"1.2.840.10008.1.2.4.70",
    "jpeg2000": b"1.2.840.10008.1.2.4.90",
    "htj2k": b"1.2.840.10008.1.2.4.202",
}
UNDEFINED = 0xFFFFFFFF
LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT", b"UC", b"UR", b"OD", b"OF", b"OL")


# --- DICOM -------------------------------------------------------------------------------------


def element(tag, vr, value, implicit=False, length=None):
    """One element; `length` may lie."""
    length = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if implicit:
        return head + struct.pack("<I", length) + value
    if vr in LONG:
        return head + vr + b"\0\0" + struct.pack("<I", length) + value
    return head + vr + struct.pack("<H", length & 0xFFFF) + value


def item(value, length=None):
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def even(value, pad=b"\0"):
    return value + pad * (len(value) % 2)


def file_meta(syntax, *more):
    """Preamble, prefix and group 2; `syntax` is the whole value of TransferSyntaxUID."""
    group = element(0x00020002, b"UI", even(b"1.2.840.10008.5.1.4.1.1.2"))
    group += element(0x00020003, b"UI", even(b"1.2.3.4"))
    vr = b"UI" if len(syntax) < 65536 else b"UN"
    group += element(0x00020010, vr, syntax) + b"".join(more)
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(group))) + group


def image(implicit=False, rows=64, columns=64, frames=1, uid=b"1.2.3.4", bits=16):
    """The header of a CT image: everything except the pixel data, with tags up to (0028,1053)."""
    us = functools.partial(struct.pack, "<H")
    fields = [
        (0x00080016, b"UI", even(b"1.2.840.10008.5.1.4.1.1.2")),
        (0x00080018, b"UI", even(uid)),
        (0x00080060, b"CS", b"CT"),
        (0x00180050, b"DS", b"1 "),
        (0x0020000D, b"UI", even(b"1.2.3")),
        (0x0020000E, b"UI", even(b"1.2.3.5")),
        (0x00200032, b"DS", b"0\\0\\0 "),
        (0x00200037, b"DS", b"1\\0\\0\\0\\1\\0 "),
        (0x00280002, b"US", us(1)),
        (0x00280004, b"CS", b"MONOCHROME2 "),
        (0x00280008, b"IS", even(str(frames).encode(), b" ")),
        (0x00280010, b"US", us(rows)),
        (0x00280011, b"US", us(columns)),
        (0x00280030, b"DS", b"1\\1 "),
        (0x00280100, b"US", us(bits)),
        (0x00280101, b"US", us(bits)),
        (0x00280102, b"US", us(bits - 1)),
        (0x00280103, b"US", us(1)),
        (0x00281052, b"DS", b"0 "),
        (0x00281053, b"DS", b"1 "),
    ]
    return b"".join(element(tag, vr, value, implicit) for tag, vr, value in fields)


def pixels(data, implicit=False):
    return element(0x7FE00010, b"OW", data, implicit)


def encapsulated(*fragments):
    items = b"".join(item(even(fragment)) for fragment in (b"", *fragments))
    return element(0x7FE00010, b"OB", items + SEQUENCE_END, length=UNDEFINED)


def good_image(syntax=EXPLICIT, uid=b"1.2.3.4"):
    """A valid file."""
    return file_meta(even(syntax)) + image(uid=uid) + pixels(bytes(64 * 64 * 2))


def nested(depth, implicit=False, defined=False, vr=b"SQ", tag=0x00081140, empty=b""):
    """Sequences in items in sequences. With defined lengths, building them from the outside would take time that
    grows with the square of the depth, so they are built from the inside."""
    if defined:
        parts, length = [], 0
        for _ in range(depth):
            inner = struct.pack("<HHI", 0xFFFE, 0xE000, length)
            outer = element(tag, vr, b"", implicit, length + 8)
            parts.append(outer + inner)
            length += 8 + len(outer)
        return b"".join(reversed(parts)) + empty
    opening = element(tag, vr, b"", implicit, UNDEFINED) + struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    return opening * depth + empty + (ITEM_END + SEQUENCE_END) * depth


# The value of TransferSyntaxUID, and whether the rest is in implicit VR.
SYNTAXES = {
    "explicit": (even(EXPLICIT), False),
    "implicit": (even(IMPLICIT), True),
    "implicit-one-space": (IMPLICIT + b" ", True),
    "implicit-nuls": (IMPLICIT + b"\0" * 7, True),
    "implicit-spaces": (IMPLICIT + b" " * 7, True),
    "implicit-mixed": (IMPLICIT + b" \0 \0\0 \0", True),
    "implicit-tabs": (IMPLICIT + b"\t\n\r\0\0", True),
    "implicit-leading-space": (b" " + IMPLICIT, True),
    "implicit-64": (IMPLICIT.ljust(64, b"\0"), True),
    "implicit-66": (IMPLICIT.ljust(66, b"\0"), True),
    "implicit-4000": (IMPLICIT.ljust(4000, b" "), True),
    "implicit-nul-inside": (IMPLICIT + b"\0" + b".1\0\0\0\0", True),
    "implicit-two-values": (IMPLICIT + b"\\" + EXPLICIT, True),
    "explicit-nuls": (EXPLICIT.ljust(40, b"\0"), False),
    "explicit-holds-implicit": (even(EXPLICIT), True),
    "implicit-holds-explicit": (even(IMPLICIT), False),
    "big-endian": (even(BIG_ENDIAN), False),
    "deflated": (even(DEFLATED), False),
    "unknown": (b"1.2.3.4\0", True),
    "empty": (b"", True),
}


def nested_sequences(depth=100_000):
    """Sequences nested `depth` deep in every encoding and padding."""
    for name, (syntax, implicit) in SYNTAXES.items():
        for defined in (False, True):
            body = nested(depth, implicit, defined)
            kind = "defined" if defined else "undefined"
            yield f"nested-{name}-{kind}", DICOM, file_meta(syntax) + body
    explicit, implicit = even(EXPLICIT), even(IMPLICIT)
    twice = element(0x00020010, b"UI", explicit)
    yield "nested-syntax-twice", DICOM, file_meta(implicit, twice) + nested(depth, True)
    twice = element(0x00020010, b"UI", implicit)
    yield "nested-syntax-twice-reversed", DICOM, file_meta(explicit, twice) + nested(depth, True)
    # A sequence of unknown VR: its content is implicit VR by the standard, but explicit VR to some readers.
    for inner in (False, True):
        opening = element(0x00091010, b"UN", b"", length=UNDEFINED) + item(b"", UNDEFINED)
        name = f"nested-un-{'implicit' if inner else 'explicit'}"
        yield name, DICOM, file_meta(explicit) + opening + nested(depth, inner)
    yield "nested-un-un", DICOM, file_meta(explicit) + nested(depth, vr=b"UN", tag=0x00091010)
    yield "nested-ob", DICOM, file_meta(explicit) + nested(depth, vr=b"OB", tag=0x00091010)
    yield "nested-unknown-vr", DICOM, file_meta(explicit) + nested(depth, vr=b"ZZ", tag=0x00091010)
    yield "nested-private-implicit", DICOM, file_meta(implicit) + nested(depth, True, tag=0x00091010)
    icon = nested(depth, tag=0x00880200)
    yield "nested-in-icon", DICOM, file_meta(explicit) + image() + icon
    in_pixels = element(0x7FE00010, b"OB", b"", length=UNDEFINED) + item(nested(depth))
    yield "nested-in-pixel-data", DICOM, file_meta(explicit) + image() + in_pixels
    sequence = element(0x7FE00010, b"SQ", b"", length=UNDEFINED) + item(b"", UNDEFINED)
    yield "nested-in-pixel-sequence", DICOM, file_meta(explicit) + image() + sequence + nested(depth)
    after = pixels(bytes(8192)) + nested(depth, tag=0xFFFAFFFA)
    yield "nested-after-pixel-data", DICOM, file_meta(explicit) + image() + after
    meta = element(0x00020102, b"SQ", nested(depth)[: 60 << 10])
    yield "nested-in-meta", DICOM, file_meta(explicit, meta)
    open_only = element(0x00081140, b"SQ", b"", length=UNDEFINED) + item(b"", UNDEFINED)
    yield "nested-without-end", DICOM, file_meta(explicit) + open_only * (BODY // len(open_only) - 100)


def _flood(name, unit, implicit=False, size=BODY, wrap=None):
    start = file_meta(even(IMPLICIT if implicit else EXPLICIT))
    body = unit * ((size - len(start) - 64) // len(unit))
    return name, DICOM, start + (wrap(body) if wrap else body)


def floods():
    """As many copies of one small thing as fit into a body."""
    sequence = functools.partial(element, 0x00081140, b"SQ", length=UNDEFINED)
    in_sequence = lambda body: sequence(body + SEQUENCE_END)
    in_item = lambda body: sequence(item(body + ITEM_END, UNDEFINED) + SEQUENCE_END)
    tiny = element(0x00080060, b"CS", b"")
    yield _flood("flood-elements", tiny)
    yield _flood("flood-elements-implicit", element(0x00080060, b"", b"", True), True)
    yield _flood("flood-items", item(b""), wrap=in_sequence)
    yield _flood("flood-items-of-one", item(tiny), wrap=in_sequence)
    yield _flood("flood-sequences", element(0x00081140, b"SQ", b""))
    yield _flood("flood-in-item", tiny, wrap=in_item)
    yield _flood("flood-delimiters", ITEM_END)
    yield _flood("flood-sequence-delimiters", SEQUENCE_END)
    values = b"\\" * (BODY - 1024)
    yield "flood-values", DICOM, file_meta(even(EXPLICIT)) + element(0x00080070, b"UC", values)
    implicit = element(0x00281052, b"", values, True)
    yield "flood-values-implicit", DICOM, file_meta(even(IMPLICIT)) + implicit
    latin = element(0x00080005, b"CS", b"ISO_IR 100") + element(0x00204000, b"UT", b"\xe4" * (BODY - 1024))
    yield "flood-text", DICOM, file_meta(even(EXPLICIT)) + latin
    tags = b"".join(
        struct.pack("<HH2sH", 0x0009 + 2 * (n >> 16), n & 0xFFFF, b"CS", 0) for n in range(1 << 20)
    )
    yield "flood-distinct-elements", DICOM, file_meta(even(EXPLICIT)) + tags
    fragments = element(0x7FE00010, b"OB", item(b"") * ((BODY - 2048) // 8), length=UNDEFINED)
    yield "flood-fragments", DICOM, file_meta(even(CODECS["jpeg2000"])) + image() + fragments
    frames = image(rows=1, columns=1, frames=30_000_000) + pixels(bytes(60_000_000))
    yield "flood-frames", DICOM, file_meta(even(EXPLICIT)) + frames
    table = item(bytes(BODY - 4096)) + item(b"\xff\xd8\xff\xd9") + SEQUENCE_END
    table = element(0x7FE00010, b"OB", table, length=UNDEFINED)
    yield "flood-offset-table", DICOM, file_meta(even(CODECS["jpeg2000"])) + image() + table
    for name, tag, vr in (("text", 0x00204000, b"UT"), ("bytes", 0x00091010, b"OB"), ("words", 0x00091010, b"OW")):
        lie = element(tag, vr, b"", length=0xFFFFFFFE)
        yield f"length-lie-{name}", DICOM, file_meta(even(EXPLICIT)) + lie
    lie = element(0x00020102, b"OB", b"", length=0xFFFFFFFE)
    yield "length-lie-meta", DICOM, file_meta(even(EXPLICIT), lie)


def jpeg_header(rows, columns, sof=0xC0, precision=8):
    frame = struct.pack(">BHHBBBB", precision, rows, columns, 1, 1, 0x11, 0)
    scan = bytes([1, 1, 0, 1 if sof == 0xC3 else 0, 0 if sof == 0xC3 else 63, 0])
    tables = b"\xff\xdb" + struct.pack(">HB", 67, 0) + b"\x01" * 64
    for kind in (0x00, 0x10):
        tables += b"\xff\xc4" + struct.pack(">HB", 20, kind) + b"\x01" + bytes(15) + b"\x00"
    sized = lambda marker, body: bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
    return b"\xff\xd8" + tables + sized(sof, frame) + sized(0xDA, scan)


def jpeg(rows, columns, data=b"\0" * 16, **how):
    return jpeg_header(rows, columns, **how) + data + b"\xff\xd9"


def codestream(rows, columns, tile=None, levels=5, block=4, layers=1, precincts=b"", ht=False, data=b"", precision=16):
    """A JPEG 2000 codestream with empty packets."""
    tile = tile or (columns, rows)
    sized = lambda marker, body: struct.pack(">HH", marker, len(body) + 2) + body
    siz = struct.pack(">HIIIIIIIIHBBB", 0x4000 if ht else 0, columns, rows, 0, 0, *tile, 0, 0, 1, 0x80 | precision - 1, 1, 1)
    cod = struct.pack(">BBHBBBBBB", bool(precincts), 2, layers, 0, levels, block, block, 0x40 if ht else 0, 1)
    quantisation = b"\x40" + bytes([precision << 3]) * (3 * levels + 1)
    head = b"\xff\x4f" + sized(0xFF51, siz)
    if ht:
        head += sized(0xFF50, struct.pack(">IH", 0x00020000, 0))
    head += sized(0xFF52, cod + precincts) + sized(0xFF5C, quantisation)
    tiles = -(-columns // tile[0]) * -(-rows // tile[1])
    data = data or b"\0" * (levels + 1)
    parts = []
    for number in range(min(tiles, 65535)):
        parts.append(b"\xff\x90" + struct.pack(">HHIBB", 10, number, 14 + len(data), 0, 1) + b"\xff\x93" + data)
    return head + b"".join(parts) + b"\xff\xd9"


def rle(planes, segment):
    offsets = [64 + n * len(segment) for n in range(planes)]
    return struct.pack("<16I", planes, *offsets, *[0] * (15 - planes)) + segment * planes


def huge_frames(side=65535):
    """Frames of a few bytes that claim to have 65535 × 65535 pixels, one for each codec."""
    frames = {
        "native": None,
        "rle": rle(2, b"\x81\0" * 64),
        "jpeg-baseline": jpeg(side, side),
        "jpeg-extended": jpeg(side, side, sof=0xC1),
        "jpeg-lossless": jpeg(side, side, sof=0xC3, precision=16),
        "jpeg2000": codestream(side, side),
        "htj2k": codestream(side, side, ht=True),
    }
    for name, frame in frames.items():
        bits = 8 if name in ("jpeg-baseline", "jpeg-extended") else 16
        data = pixels(bytes(64)) if frame is None else encapsulated(frame)
        body = image(rows=side, columns=side, bits=bits) + data
        yield f"huge-frame-{name}", DICOM, file_meta(even(CODECS[name])) + body
    progressive = jpeg(side, side, sof=0xC2)
    body = image(rows=side, columns=side, bits=8) + encapsulated(progressive)
    yield "huge-frame-jpeg-progressive", DICOM, file_meta(even(CODECS["jpeg-extended"])) + body


def heavy_codestreams():
    """Codestreams whose structure costs a decoder more than their image does."""
    side = 4096
    forms = {
        "tiles": dict(tile=(64, 64), levels=0),
        "tiny-tiles": dict(tile=(1, 1), levels=0),
        "tiny-blocks": dict(block=0),
        "tiny-precincts": dict(precincts=b"\x00" * 6),
        "precincts-one-way": dict(levels=1, precincts=b"\xf0\x0f"),
        "layers": dict(layers=65535),
        "levels": dict(levels=32),
    }
    for (name, form), ht in itertools.product(forms.items(), (False, True)):
        frame = codestream(side, side, ht=ht, **form)
        syntax = CODECS["htj2k" if ht else "jpeg2000"]
        body = image(rows=side, columns=side) + encapsulated(frame)
        yield f"codestream-{name}-{'ht' if ht else 'j2k'}", DICOM, file_meta(even(syntax)) + body
    # Each scan costs a pass over the whole image, but only a byte or two of the file.
    scan = jpeg_header(8192, 8192, sof=0xC2)
    scan = scan[scan.rindex(b"\xff\xda") :] + b"\0"
    frame = jpeg_header(8192, 8192, sof=0xC2) + scan * 20_000 + b"\xff\xd9"
    body = image(rows=8192, columns=8192, bits=8) + encapsulated(frame)
    yield "jpeg-many-scans", DICOM, file_meta(even(CODECS["jpeg-extended"])) + body


# --- Archives ----------------------------------------------------------------------------------


def tar_entry(name, data=b"", kind=b"0", size=None):
    """One tar header and its data; `size` may lie."""
    size = len(data) if size is None else size
    head = bytearray(512)
    head[0 : len(name)] = name
    head[100:124] = b"0000644\0" + b"0000000\0" * 2
    head[124:136] = b"%011o\0" % size
    head[136:148] = b"00000000000\0"
    head[148:156] = b" " * 8
    head[156:157] = kind
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data + bytes(-len(data) % 512)


TAR_END = bytes(1024)


def gzip_of_zeros(mebibytes, before=b"", after=b""):
    """Zeros compressed by gzip, at deflate's best ratio of about 1030."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [compressor.compress(before)]
    zeros = bytes(1 << 20)
    parts += [compressor.compress(zeros) for _ in range(mebibytes)]
    return b"".join(parts) + compressor.compress(after) + compressor.flush()


def _long_deflated(blocks, start=b""):
    """A raw deflate stream of `start` and `blocks` MiB of zeros, built without compressing all of them, since
    compressed zeros repeat."""
    head = zlib.compressobj(9, zlib.DEFLATED, -15)
    parts = [head.compress(start) + head.flush(zlib.Z_FULL_FLUSH)]
    piece = zlib.compressobj(9, zlib.DEFLATED, -15)
    unit = piece.compress(bytes(1 << 20)) + piece.flush(zlib.Z_FULL_FLUSH)
    parts.append(unit * blocks)
    last = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"".join(parts) + last.flush(zlib.Z_FINISH)


def _crc_unknown_gzip(raw, size):
    """Raw deflate data as gzip. The checksum is wrong, which is noticed only at the end."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + raw + struct.pack("<II", 0, size & 0xFFFFFFFF)


def tar_bombs():
    """Archives that expand to gigabytes, in every way there is."""
    dicom = file_meta(even(EXPLICIT))
    size = 60_000
    huge = b"%d" % (size << 20)
    for name, kind, start in (
        ("image", b"0", dicom),
        ("other", b"0", b""),
        ("folder", b"5", b""),
        ("long-name", b"L", b""),
        ("long-link", b"K", b""),
        ("pax", b"x", b""),
        ("pax-global", b"g", b""),
        ("sparse", b"S", b""),
        ("unknown", b"Z", b""),
    ):
        # The header claims 8 GiB less one, the most that its field can hold.
        head = tar_entry(b"a", kind=kind, size=(8 << 30) - 1)
        raw = _long_deflated(size, head + start)
        yield f"tar-gz-bomb-{name}", GZIP, _crc_unknown_gzip(raw, int(huge))[:BODY]
    whole = tar_entry(b"a", dicom) + TAR_END
    yield "tar-gz-bomb-trailing", GZIP, _crc_unknown_gzip(_long_deflated(size, whole), 0)[:BODY]
    zeros = tar_entry(b"L", b"x" * (60 << 20), b"L") + tar_entry(b"a", dicom) + TAR_END
    yield "tar-long-name", TAR, zeros
    pax = b"a" * (60 << 20)
    yield "tar-pax", TAR, tar_entry(b"x", pax, b"x") + tar_entry(b"a", dicom) + TAR_END
    record = b"18 path=some/where\n"
    flood = tar_entry(b"x", record, b"x") * 60_000
    yield "tar-pax-flood", TAR, flood + tar_entry(b"a", dicom) + TAR_END
    yield "tar-entry-flood", TAR, tar_entry(b"a") * 120_000 + TAR_END
    pax_size = b"%d size=99999999999\n" % 21
    yield "tar-two-sizes", TAR, tar_entry(b"x", pax_size, b"x") + tar_entry(b"a", dicom) + TAR_END
    yield "tar-truncated", TAR, tar_entry(b"a", dicom, size=1 << 30)


def gzip_bombs():
    """Members in members and members by the million."""
    member = gzip.compress(b"", mtime=0)
    yield "gzip-empty-members", GZIP, member * (BODY // len(member))
    inner = gzip_of_zeros(32)
    for _ in range(5):
        inner = gzip.compress(inner, mtime=0)
    yield "gzip-nested", GZIP, inner
    tar = tar_entry(b"a", good_image()) + TAR_END
    split = [tar[at : at + 7] for at in range(0, len(tar), 7)]
    yield "gzip-split-members", GZIP, b"".join(gzip.compress(part, mtime=0) for part in split)
    name = b"\x1f\x8b\x08\x08\0\0\0\0\0\xff" + b"n" * (BODY - 64)
    yield "gzip-long-name", GZIP, name


def zip_archive(entries, comment=b""):
    """A zip of `(name, method, stored bytes, size, crc, {field: lie})`."""
    out, directory = io.BytesIO(), []
    for name, method, data, size, crc, lies in entries:
        offset = lies.get("offset", out.tell())
        fields = (20, lies.get("flags", 0), method, 0, 0, crc, lies.get("compressed", len(data)), size, len(name))
        if "offset" not in lies:
            out.write(b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", *fields, 0) + name + data)
        tail = struct.pack("<HHHHII", 0, 0, 0, 0, lies.get("mode", 0) << 16, offset)
        made_by = struct.pack("<H", 3 << 8 | 20)
        directory.append(b"PK\x01\x02" + made_by + struct.pack("<HHHHHIIIH", *fields) + tail + name)
    start = out.tell()
    out.write(b"".join(directory))
    count = min(len(directory), 65535)
    out.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, out.tell() - start, start, len(comment)))
    return out.getvalue() + comment


def zip_bombs():
    """Zip archives that lie, overlap, expand, or have more entries than fit in memory."""
    dicom = file_meta(even(EXPLICIT))
    raw = _long_deflated(60_000, dicom)
    yield "zip-bomb-image", ZIP, zip_archive([(b"a", 8, raw, 0xFFFFFFFE, 0, {})])
    plain = _long_deflated(60_000)
    yield "zip-bomb-other", ZIP, zip_archive([(b"a", 8, plain, 0xFFFFFFFE, 0, {})])
    small = _long_deflated(1, dicom)
    yield "zip-size-lie-small", ZIP, zip_archive([(b"a", 8, small, 132, 0, {})])
    yield "zip-size-lie-large", ZIP, zip_archive([(b"a", 8, small, 0xFFFFFFFE, 0, {})])
    yield "zip-compressed-lie", ZIP, zip_archive([(b"a", 8, small, 1 << 20, 0, {"compressed": 0xFFFFFFFE})])
    first = (b"a", 8, _long_deflated(60, dicom), 60 << 20, 0, {})
    again = [(b"%d" % n, 8, first[2], 60 << 20, 0, {"offset": 0}) for n in range(15_000)]
    yield "zip-overlap", ZIP, zip_archive([first, *again])
    tiny = [(b"%d" % n, 0, b"", 0, 0, {}) for n in range(65_000)]
    yield "zip-entries", ZIP, zip_archive(tiny)
    entry = b"PK\x01\x02" + bytes(42)
    directory = entry * (BODY // len(entry) - 10)
    local = b"PK\x03\x04" + bytes(26)
    count = len(directory) // len(entry)
    end64 = lambda n, size, at: b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, n, n, size, at)
    end = lambda at: b"PK\x06\x07" + struct.pack("<IQI", 0, at, 1) + b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + b"\0\0"
    body = local + directory
    yield "zip64-directory", ZIP, body + end64(count, len(directory), len(local)) + end(len(body))
    # A library may allocate memory for as many entries as an offset allows.
    filler = local + bytes(60 << 20)
    yield "zip64-count-lie", ZIP, filler + end64(60_000_000, 46, len(filler) - 46) + end(len(filler))
    yield "zip64-nonsense", ZIP, local + end64(2**64 - 1, 2**64 - 1, 2**64 - 1) + end(len(local))
    yield "zip-end-flood", ZIP, local + (b"PK\x05\x06" + bytes(18)) * ((BODY - 64) // 22)
    link = (b"a", 0, b"/etc/passwd", 11, zlib.crc32(b"/etc/passwd"), {"mode": 0o120777})
    yield "zip-link", ZIP, zip_archive([link])
    up = (b"../a", 0, b"x", 1, zlib.crc32(b"x"), {})
    yield "zip-upwards", ZIP, zip_archive([up])
    yield "zip-encrypted", ZIP, zip_archive([(b"a", 8, b"x" * 20, 20, 0, {"flags": 1})])
    inner = good_zip(2)
    yield "zip-in-zip", ZIP, zip_archive([(b"a.zip", 0, inner, len(inner), zlib.crc32(inner), {})])


def good_zip(count=3):
    """A zip archive of valid images."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(count):
            entry = zipfile.ZipInfo(f"{number}.dcm", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, good_image(uid=b"1.2.3.4.%d" % (number + 1)))
    return out.getvalue()


def good_tar(count=3):
    """A tar archive of valid images."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for number in range(count):
            data = good_image(uid=b"1.2.3.4.%d" % (number + 1))
            entry = tarfile.TarInfo(f"{number}.dcm")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def deep_headers():
    """Archives of many images whose parsed headers take more memory than their bytes."""
    tiny = b"".join(struct.pack("<HH2sH", 0x0009, 0x1000 + n, b"CS", 0) for n in range(2000))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(2000):
            data = file_meta(even(EXPLICIT)) + image(uid=b"1.2.3.4.%d" % (number + 1))[:60] + tiny
            archive.writestr(zipfile.ZipInfo(f"{number}", (1980, 1, 1, 0, 0, 0)), data)
    yield "zip-deep-headers", ZIP, out.getvalue()


# --- Requests ----------------------------------------------------------------------------------


def requests():
    """JSON that nests, floods or is cut off."""
    for name, opening in (("arrays", b"["), ("objects", b'{"inputs":'), ("inputs", b'{"inputs":[')):
        yield f"json-nested-{name}", JSON, opening * 100_000
    yield "json-nested-body", JSON, b"[" * (BODY - 16)
    one = b'{"s3Uri":"s3://bucket/k"},'
    yield "json-inputs", JSON, b'{"inputs":[' + one * ((BODY - 64) // len(one)) + one[:-1] + b"]}"
    keys = b",".join(b'"k%d":1' % n for n in range(1_000_000))
    yield "json-keys", JSON, b"{" + keys + b"}"
    yield "json-string", JSON, b'{"s3Uri":"' + b"a" * (BODY - 64) + b'"}'
    yield "json-escapes", JSON, b'{"s3Uri":"' + b"\\u0000" * ((BODY - 64) // 6) + b'"}'
    yield "json-number", JSON, b'{"inputs":' + b"9" * (BODY - 64) + b"}"
    images = b",".join(b'"i%d":{"s3Uri":"s3://bucket/k"}' % n for n in range(500_000))
    yield "json-images", JSON, b'{"images":{' + images + b"}}"
    yield "lines-empty", LINES, b"\n" * BODY
    line = json.dumps({"s3Uri": "s3://bucket/k"}).encode() + b"\n"
    yield "lines-flood", LINES, line * (BODY // len(line))
    yield "lines-nested", LINES, (b"[" * 10_000 + b"\n") * 1000


GENERATORS = (
    nested_sequences,
    floods,
    huge_frames,
    heavy_codestreams,
    tar_bombs,
    gzip_bombs,
    zip_bombs,
    deep_headers,
    requests,
)


def all_inputs():
    """Every hostile input, one at a time."""
    for generate in GENERATORS:
        yield from generate()
