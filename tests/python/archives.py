"""Archives of DICOM objects for tests: Orthanc, and a stand-in that can be told to misbehave."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pydicom

from local import free_port

ORTHANC = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MISSING = None if ORTHANC and PLUGIN.exists() else (
    "Orthanc or its plugin is not installed (Debian packages orthanc, orthanc-dicomweb)")
JSON = "application/dicom+json"


def parts(media_type, body):
    """The parts of a multipart/related body, byte for byte."""
    kind = Message()
    kind["Content-Type"] = media_type
    assert kind.get_content_type() == "multipart/related" and kind.get_param("type") == "application/dicom"
    first, *middle, last = (b"\r\n" + body).split(b"\r\n--" + kind.get_boundary().encode())
    assert first == b"" and last in (b"--", b"--\r\n"), (first, last)
    contents = []
    for part in middle:
        head, content = part.split(b"\r\n\r\n", 1)
        assert b"content-type: application/dicom" in head.lower(), head
        contents.append(content)
    return contents


class Service:
    """A DICOMweb service, as a client sees it."""

    def __init__(self, url, authorization=None):
        self.url, self.authorization = url, authorization

    def get(self, path, accept=JSON):
        headers = {"Accept": accept} | ({"Authorization": self.authorization} if self.authorization else {})
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.headers, answer.read()

    def instances(self, study):
        """The series and instance UIDs of everything it holds of a study."""
        try:
            _, body = self.get(f"/studies/{study}/instances")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        found = json.loads(body or b"[]")
        return sorted((one["0020000E"]["Value"][0], one["00080018"]["Value"][0]) for one in found)

    def instance(self, study, series, uid):
        """An instance as stored."""
        headers, body = self.get(
            f"/studies/{study}/series/{series}/instances/{uid}",
            'multipart/related; type="application/dicom"; transfer-syntax=*',
        )
        [part] = parts(headers["Content-Type"], body)
        return part


class Orthanc(Service):
    """Orthanc on loopback, with an account. Stopped at the end of a `with` block."""

    USER, PASSWORD = "ahi", "open:sesame"

    def __init__(self, folder):
        folder = Path(folder)
        port = free_port()
        pair = base64.b64encode(f"{self.USER}:{self.PASSWORD}".encode()).decode()
        super().__init__(f"http://127.0.0.1:{port}/dicom-web", f"Basic {pair}")
        settings = {
            "Name": "tests", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"),
            "HttpPort": port, "RemoteAccessAllowed": False, "DicomServerEnabled": False,
            "AuthenticationEnabled": True, "RegisteredUsers": {self.USER: self.PASSWORD},
            "Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.log = (folder / "orthanc.log").open("w")
        self.process = subprocess.Popen(
            [ORTHANC, folder / "orthanc.json"], stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        for _ in range(300):
            try:
                self.get("/studies")
                return self
            except (OSError, urllib.error.URLError):
                assert self.process.poll() is None, "Orthanc did not start"
                time.sleep(0.1)
        raise AssertionError("Orthanc did not answer within 30 s")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


class StandIn(Service):
    """A small in-memory archive that misbehaves on demand.

    Each store request uses up one of `faults`, in order: a status, `(status, body)`, "drop-before" (the connection
    is closed before anything is kept), "drop-after" (closed after everything is kept), "stall" (no answer, nothing
    kept), "stall-after" (no answer, everything kept), "half" (the answer breaks off in the middle). `refused`
    holds, by SOP class, the Failure Reason for instances that are refused.
    """

    def __init__(self, searches=True):
        self.kept, self.faults, self.refused = {}, [], {}
        self.requests, self.searches, self.token = [], searches, None
        self.warning, self.says_duplicate = None, False
        self.stores, self.digest = 0, None
        self.released = threading.Event()
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                archive.search(self)

            def do_POST(self):
                archive.store(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        super().__init__(f"http://127.0.0.1:{self.server.server_port}/dicom-web")

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, handler, status, body, **headers):
        handler.send_response(status)
        for name, value in ({"Content-Type": JSON, "Content-Length": str(len(body))} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    def let_in(self, handler):
        self.requests.append((handler.command, handler.path, dict(handler.headers.items())))
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            self.answer(handler, 401, b"")
            return False
        return True

    def search(self, handler):
        if not self.let_in(handler):
            return
        if not self.searches:
            return self.answer(handler, 501, b"")
        wanted = re.search(r"SOPInstanceUID=([0-9.]+)", handler.path)
        found = [uid for uid in self.kept if not wanted or uid == wanted.group(1)]
        body = [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in found]
        return self.answer(handler, 200, json.dumps(body).encode())

    def store(self, handler):
        if not self.let_in(handler):
            return
        fault = self.faults.pop(0) if self.faults else None
        length = int(handler.headers["Content-Length"])
        if fault == "drop-before":
            handler.rfile.read(length // 2)
            return self.drop(handler)
        body = handler.rfile.read(length)
        self.stores += 1
        self.digest = hashlib.sha256(body).hexdigest()
        if fault == "stall":
            self.released.wait(60)
            return self.drop(handler)
        if isinstance(fault, int):
            return self.answer(handler, fault, b"", **({"Location": "/elsewhere"} if fault < 400 else {}))
        if isinstance(fault, tuple):
            return self.answer(handler, *fault)
        referenced, failed = [], []
        for part in parts(handler.headers["Content-Type"], body):
            head = pydicom.dcmread(io.BytesIO(part), stop_before_pixels=True)
            item = {"00081150": {"vr": "UI", "Value": [head.SOPClassUID]},
                    "00081155": {"vr": "UI", "Value": [head.SOPInstanceUID]}}
            reason = self.refused.get(head.SOPClassUID)
            if self.says_duplicate and head.SOPInstanceUID in self.kept:
                reason = 0x0111
            if reason is not None:
                failed.append(item | {"00081197": {"vr": "US", "Value": [reason]}})
                continue
            self.kept.setdefault(head.SOPInstanceUID, []).append(part)
            warned = {"00081196": {"vr": "US", "Value": [self.warning]}} if self.warning else {}
            referenced.append(item | warned)
        told = {"00081198": {"vr": "SQ", "Value": failed}, "00081199": {"vr": "SQ", "Value": referenced}}
        status = 200 if not failed else 202 if referenced else 409
        content = json.dumps(told).encode()
        if fault == "drop-after":
            return self.drop(handler)
        if fault == "stall-after":
            self.released.wait(60)
            return self.drop(handler)
        if fault == "half":
            handler.send_response(status)
            handler.send_header("Content-Type", JSON)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            handler.wfile.write(content[: len(content) // 2])
            return self.drop(handler)
        return self.answer(handler, status, content)

    @staticmethod
    def drop(handler):
        handler.close_connection = True
        handler.wfile.flush()
        handler.connection.close()

    def digests(self):
        return sorted(hashlib.sha256(part).hexdigest() for kept in self.kept.values() for part in kept)
