"""Times HTJ2K decoders in turn: see scripts/bench-codec.sh, which calls this.

    bench-codec.py HELPER BINARY SHARED ROUNDS

HELPER is the bench target `codec`, a separate process that times the decoders in Rust; OpenJPH runs in this one.
Both are pinned to one core, where they take turns.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import imagecodecs
import pydicom

OPENJPH = "OpenJPH"
# Decodings in one turn; the first, with cold caches, is not counted.
TURN = 3


def frames(binary, shared, folder):
    """Codestreams by name, written to the folder: real ones, and CT frames encoded by OpenJPH."""
    for path in sorted((shared / "data/htj2k").glob("*.j2c")):
        yield path.stem, path
    sources = []
    cranium = shared / "data/cranium_ct_dicom.zip"
    if cranium.exists():
        with zipfile.ZipFile(cranium) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".dcm"))
            for name in names[10::24]:
                archive.extract(name, folder)
                sources.append((f"cranium {Path(name).stem}", folder / name))
    command = [binary, "phantom", "--out", folder / "phantom", "--size", "512", "--slices", "9", "--spacing", "0.65"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    slices = sorted((folder / "phantom/dicom").rglob("*.dcm"))
    sources += [(f"phantom {n}", slices[n]) for n in (2, 4, 6)]
    for name, source in sources:
        path = folder / f"{name.replace(' ', '-')}.j2c"
        path.write_bytes(imagecodecs.htj2k_encode(pydicom.dcmread(source).pixel_array, reversible=True))
        yield name, path


class Helper:
    """The decoders in Rust."""

    def __init__(self, program, paths):
        command = [program, *paths]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.decoders = self.process.stdout.readline().split()

    def decode(self, decoder, frame):
        """CRC-32 of the pixels, and seconds."""
        print(decoder, frame, TURN, file=self.process.stdin, flush=True)
        crc, *taken = map(int, self.process.stdout.readline().split())
        return crc, [one / 1e9 for one in taken[1:]]


class OpenJph:
    """OpenJPH through imagecodecs."""

    def __init__(self, paths):
        self.data = [path.read_bytes() for path in paths]
        self.out = [imagecodecs.htj2k_decode(data) for data in self.data]

    def decode(self, frame):
        data, out, taken = self.data[frame], self.out[frame], []
        for _ in range(TURN):
            start = time.perf_counter()
            imagecodecs.htj2k_decode(data, out=out)
            taken.append(time.perf_counter() - start)
        return zlib.crc32(out.astype("<i4").astype("<u2").tobytes()), taken[1:]


def main(program, binary, shared, rounds):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        found = list(frames(binary, Path(shared), Path(folder)))
        names, paths = zip(*found)
        helper, openjph = Helper(program, paths), OpenJph(paths)
        decoders = [*helper.decoders, OPENJPH]
        times = {(frame, decoder): [] for frame in range(len(names)) for decoder in decoders}
        for _ in range(int(rounds)):
            for frame in range(len(names)):
                crcs = set()
                for decoder in decoders:
                    turn = openjph.decode(frame) if decoder == OPENJPH else helper.decode(decoder, frame)
                    crcs.add(turn[0])
                    times[frame, decoder] += turn[1]
                assert len(crcs) == 1, f"{names[frame]}: the decoders differ"
        report(names, openjph, decoders, {key: statistics.median(taken) for key, taken in times.items()})
        helper.process.stdin.close()
        helper.process.wait()


def report(names, openjph, decoders, medians):
    print(f"{imagecodecs.htj2k_version()}, imagecodecs {imagecodecs.__version__}; medians in ms, their ratio to "
          f"OpenJPH's, and MB/s of pixels (two bytes each)")
    print(f"{'frame':<14}{'pixels':>12}" + "".join(f"{decoder:>24}" for decoder in decoders))
    for frame, name in enumerate(names):
        rows, columns = openjph.out[frame].shape
        cells = []
        for decoder in decoders:
            median = medians[frame, decoder]
            ratio, speed = median / medians[frame, OPENJPH], 2e-6 * rows * columns / median
            cells.append(f"{1000 * median:9.3f} {ratio:6.2f} {speed:7.0f}")
        print(f"{name:<14}{f'{columns}x{rows}':>12}" + "".join(f"{cell:>24}" for cell in cells))
    print("geometric mean of the ratios to OpenJPH: " + ", ".join(
        f"{decoder} {statistics.geometric_mean(medians[f, decoder] / medians[f, OPENJPH] for f in range(len(names))):.2f}"
        for decoder in decoders
    ))


if __name__ == "__main__":
    main(*sys.argv[1:])
