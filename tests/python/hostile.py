"""Hostile inputs against fresh servers: for scripts/hostile.py, and in a shorter form for the tests.

Each input goes to a fresh server with little memory. Meanwhile /ping is polled and good requests are sent.
Afterwards the server must be alive, answer /ping, and answer a good request as before.
"""

import io
import json
import os
import resource
import shutil
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from local import ROOT, copy_store, edit_metadata, emulate, import_dicom, run, serve
from traffic import Pinger, ask

CT = "1.2.840.10008.5.1.4.1.1.2"

# What an input may cost: seconds until its answer, MiB at peak, seconds of the slowest /ping.
SECONDS, MEBIBYTES, PING = 10, 512, 1.0


@dataclass
class Case:
    """A hostile input: `attack(target)` sends it and returns a status and a code for each answer."""

    name: str
    attack: object
    # The acceptable statuses; 0 stands for a closed connection.
    statuses: set = field(default_factory=lambda: set(range(400, 500)) | {503, 507})
    # Whether the server exits, as SIGTERM asks it to.
    ends: bool = False
    # How the metadata of the image set used in the attack is changed.
    change: object = None
    # MiB that may be added at peak.
    mebibytes: int = MEBIBYTES


@dataclass
class Target:
    """A server under attack, and a good request for it."""

    server: object
    good: dict
    victim: dict
    s3: str
    folder: Path

    @property
    def address(self):
        return self.server.address


@dataclass
class Row:
    """The outcome of an attack."""

    name: str
    answers: list
    seconds: float
    added: float
    ping: float
    problems: list

    def __str__(self):
        seen = ", ".join(dict.fromkeys(f"{status} {code}".strip() for status, code in self.answers))
        verdict = "ok" if not self.problems else "; ".join(self.problems)
        return (f"{self.name:<44} {seen[:44]:<44} {self.seconds:6.1f} s {self.added:7.0f} MiB "
                f"ping {self.ping * 1e3:6.0f} ms  {verdict}")


def code_of(answer):
    """The error code of an answer; empty for a good one."""
    try:
        return answer.json()["error"]["code"]
    except (ValueError, KeyError, TypeError):
        return ""


def send(target, body, content_type, path="/invocations", timeout=60):
    """Sends a body as it is; returns status and code of the answer."""
    import http.client
    from urllib.parse import urlsplit
    place = urlsplit(target.address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=timeout)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        response = connection.getresponse()
        content = response.read()
    except OSError:
        return 0, "closed"
    finally:
        connection.close()
    lines = content.splitlines()
    try:
        code = json.loads(lines[0])["error"]["code"] if lines else ""
    except (ValueError, KeyError, TypeError):
        code = ""
    return response.status, code


def body(name, content_type, data, **options):
    """A case with a single body; `data` may be a function that creates it."""
    return Case(name, lambda target: [send(target, data() if callable(data) else data, content_type)], **options)


# Image sets with lying headers, as they would come from AHI.


def image_set(name, change, **options):
    """A case with an image set whose metadata `change` has altered."""

    def attack(target):
        answer = ask(target.address, "POST", "/invocations", {"inputs": [target.victim]}, timeout=60)
        return [(answer.status, code_of(answer))]

    return Case(name, attack, change=change, **options)


def each_instance(change):
    """A change to the attributes of every instance."""

    def altered(document):
        for series in document["Study"]["Series"].values():
            for instance in series["Instances"].values():
                change(instance)

    return altered


def attributes(**values):
    return each_instance(lambda instance: instance["DICOM"].update(values))


def sizes(rows, columns):
    def change(instance):
        instance["DICOM"].update(Rows=rows, Columns=columns)
        for frame in instance["ImageFrames"]:
            for entry in frame["PixelDataChecksumFromBaseToFullResolution"]:
                entry.update(Width=columns, Height=rows)

    return each_instance(change)


def scaled_positions(factor):
    def change(instance):
        position = instance["DICOM"]["ImagePositionPatient"]
        position[2] = str(float(position[2]) * factor)[:16]

    return each_instance(change)


def many_frames(count):
    def change(document):
        for series in document["Study"]["Series"].values():
            uid, instance = next(iter(series["Instances"].items()))
            instance["DICOM"]["NumberOfFrames"] = count
            instance["ImageFrames"] = instance["ImageFrames"] * count
            series["Instances"] = {uid: instance}

    return change


def nested(depth):
    def change(document):
        inner = {}
        for _ in range(depth):
            inner = {"ReferencedImageSequence": [inner]}
        for series in document["Study"]["Series"].values():
            next(iter(series["Instances"].values()))["DICOM"].update(inner)

    return change


IMAGE_SETS = [
    image_set("pixels of 400 mm", attributes(PixelSpacing=["400", "400"])),
    image_set("pixels of 60 mm", attributes(PixelSpacing=["60", "60"])),
    image_set("pixels of a micrometre", attributes(PixelSpacing=["0.001", "0.001"]), statuses={200, 413, 422}),
    image_set("pixels of nothing", attributes(PixelSpacing=["1e-300", "1e-300"])),
    image_set("pixels of 1e300 mm", attributes(PixelSpacing=["1e300", "1e300"])),
    image_set("slices 10 m apart", scaled_positions(10_000)),
    image_set("frames of 65535 x 65535", sizes(65535, 65535)),
    image_set("frames of 65535 x 1", sizes(65535, 1)),
    image_set("frames of 0 x 0", sizes(0, 0)),
    image_set("a million frames", many_frames(1_000_000)),
    image_set("metadata nested 400 deep", nested(400)),
]


# DICOM files and archives of them.


def slices(count, rows, columns, spacing, step, fill=0):
    """A zip archive of plain CT slices."""
    uid, frame, study = generate_uid(), generate_uid(), generate_uid()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for index in range(count):
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CT, generate_uid()
            dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            dataset.SOPClassUID, dataset.SOPInstanceUID = CT, meta.MediaStorageSOPInstanceUID
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, uid
            dataset.FrameOfReferenceUID, dataset.Modality, dataset.InstanceNumber = frame, "CT", index + 1
            dataset.PatientID, dataset.PatientName = "hostile", "Hostile^Input"
            dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "000000", "1"
            dataset.Rows, dataset.Columns, dataset.PixelSpacing = rows, columns, spacing
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            dataset.ImagePositionPatient = [0, 0, index * step]
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
            dataset.PixelRepresentation, dataset.RescaleSlope, dataset.RescaleIntercept = 1, 1, 0
            dataset.PixelData = np.full((rows, columns), fill, np.int16).tobytes()
            file = io.BytesIO()
            pydicom.dcmwrite(file, dataset, enforce_file_format=True)
            out.writestr(str(index), file.getvalue())
    return archive.getvalue()


BODIES = [
    body("a body of pixels of 400 mm", "application/zip", lambda: slices(4, 512, 512, [400, 400], 1)),
    body("a body of pixels of 60 mm", "application/zip", lambda: slices(4, 512, 512, [60, 60], 1)),
    body("a body of slices 10 m apart", "application/zip", lambda: slices(8, 64, 64, [1, 1], 10_000)),
    body("1,000 slices of one pixel", "application/zip", lambda: slices(1_000, 1, 1, [1, 1], 1),
         statuses={200, 413, 422}),
    body("no JSON", "application/json", b"\xff\xfe nothing"),
    body("JSON nested 100,000 deep", "application/json", b'{"inputs":' + b"[" * 100_000),
]


# Limits, and a server under them.

MEMORY = 4 << 30
SMALL = {"LOG_LEVEL": "error", "CPU_THREADS": "2"}


class Limit:
    """4 GiB for a server: by a control group (version 1 or 2) if possible, else by its address space."""

    ROOTS = {
        "memory.limit_in_bytes": Path("/sys/fs/cgroup/memory"),
        "memory.max": Path("/sys/fs/cgroup"),
    }

    def __init__(self, kind="auto"):
        self.folder = None if kind == "space" else self.group()
        if kind == "cgroup" and not self.folder:
            raise RuntimeError("no control group can be made here")
        self.kind = "a control group" if self.folder else "its address space"

    def group(self):
        for name, root in self.ROOTS.items():
            folder = root / f"hostile-{os.getpid()}"
            try:
                folder.mkdir()
                (folder / name).write_text(str(MEMORY))
                return folder
            except OSError:
                if folder.is_dir():
                    folder.rmdir()
        return None

    def apply(self):
        """Called in the child process before it becomes the server."""
        if self.folder:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))
        else:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.folder:
            self.folder.rmdir()


def memory_peak(pid):
    """Peak resident memory in MiB since it was last reset."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def reset_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def segments(answer):
    return [(s["label"], s["voxels"]) for s in answer.json()["results"][0]["segments"]]


class Beside:
    """Sends good requests one after another during an attack, the first of them at its start."""

    def __init__(self, target, expected):
        self.target, self.expected = target, expected
        self.problems, self.answered = [], 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while True:
            answer = ask(self.target.address, "POST", "/invocations", {"inputs": [self.target.good]}, timeout=120)
            if answer.status == 200 and segments(answer) == self.expected:
                self.answered += 1
            elif answer.status != 503:
                self.problems.append(f"a good request: {answer.status} {answer.body[:120]}")
            if self.stop.wait(0.05):
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


def attacked(case, target):
    """Runs one attack on a fresh server; returns its outcome."""
    process = target.server.process
    good = {"inputs": [target.good]}
    first = ask(target.address, "POST", "/invocations", good)
    assert first.status == 200, first.body
    expected = segments(first)
    # Memory that two good requests take at once is not counted against the attack.
    with Beside(target, expected), Beside(target, expected):
        pass
    usual = memory_peak(process.pid)
    reset_peak(process.pid)
    problems = []
    with Pinger(target.address, 0.05) as pinger, Beside(target, expected) as beside:
        started = time.perf_counter()
        answers = case.attack(target)
        seconds = time.perf_counter() - started
    if case.ends:
        process.wait(40)
        if process.returncode != 0:
            problems.append(f"it ended with {process.returncode}")
        added = 0
    elif process.poll() is not None:
        problems.append(f"THE SERVER ENDED with {process.returncode}")
        added = 0
    else:
        added = memory_peak(process.pid) - usual
        problems += beside.problems
        after = ask(target.address, "POST", "/invocations", good)
        if after.status != 200 or segments(after) != expected:
            problems.append(f"a good request afterwards: {after.status}")
        if pinger.statuses != {200}:
            problems.append(f"/ping answered {pinger.statuses}")
        if max(pinger.seconds, default=0) > PING:
            problems.append("/ping was slow")
    if added > case.mebibytes:
        problems.append("too much memory")
    if seconds > SECONDS and not getattr(case.attack, "takes_long", False):
        problems.append("too slow")
    wrong = [status for status, _ in answers if status not in case.statuses]
    if wrong:
        problems.append(f"unexpected: {wrong[:5]}")
    return Row(case.name, answers, seconds, added, max(pinger.seconds, default=0), problems)


class Place:
    """A store with the image set for good requests and one to be altered."""

    def __init__(self, folder, size=96, slices=64):
        self.folder = folder
        run("phantom", "--out", folder / "good", "--size", size, "--slices", slices)
        run("phantom", "--out", folder / "victim", "--size", size, "--slices", 16, "--seed", 9)
        self.store = folder / "store"
        self.good = import_dicom(folder / "good/dicom", self.store)
        self.victim = import_dicom(folder / "victim/dicom", self.store)

    def attack(self, case, limit, **environment):
        """Runs one case, with its own server and AHI."""
        store = self.folder / "altered"
        shutil.rmtree(store, ignore_errors=True)
        copy_store(self.store, store)
        if case.change:
            edit_metadata(store, self.victim, case.change)
        settings = SMALL | environment
        with emulate(store) as ahi:
            s3 = ahi.next_address()
            settings |= {"S3_ENDPOINT_URL": s3, "S3_PATH_STYLE": "true"}
            with serve(ROOT / "model/ct_phantom", ahi.address, before=limit, **settings) as server:
                return attacked(case, Target(server, self.good, self.victim, s3, store))
