"""What moto lacks: GetImageSet and GetImageSetMetadata of HealthImaging, on loopback, for boto3."""

import gzip
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DATASTORE = "0123456789abcdef0123456789abcdef"
PATH = re.compile(r"/datastore/([^/]+)/imageSet/([^/]+)/(getImageSet|getImageSetMetadata)(?:\?version=(\d+))?")
CT = "1.2.840.10008.5.1.4.1.1.2"


def document(slices=30, frames=1, series=None, **attributes):
    """Metadata of an image set as HealthImaging returns it; `attributes` are those of each instance."""
    instance = {"SOPClassUID": CT, "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]} | attributes
    return {
        "SchemaVersion": "1.1",
        "Patient": {"DICOM": {"PatientName": "DOE^JANE", "PatientID": "4711"}},
        "Study": {
            "DICOM": {"StudyInstanceUID": "1.2.3"},
            "Series": {
                "1.2.3.4": {
                    "DICOM": {"Modality": "CT", "Manufacturer": "ACME"} | (series or {}),
                    "Instances": {
                        f"1.2.3.4.{number}": {"DICOM": instance, "ImageFrames": [{"ID": "f"}] * frames}
                        for number in range(slices)
                    },
                }
            },
        },
    }


class ImageSets:
    """A data store; stopped at the end of a `with` block."""

    def __init__(self):
        # By identifier: the answer of GetImageSet, and the bytes of GetImageSetMetadata.
        self.sets = {}
        # Status and error of the next answers; once they are used up, requests succeed.
        self.faults = []
        self.calls = []
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, error, body = store.answer(self.path)
                self.send_response(status)
                if error:
                    self.send_header("X-Amzn-ErrorType", error)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, metadata, version="1", **properties):
        content = metadata if isinstance(metadata, bytes) else gzip.compress(json.dumps(metadata).encode())
        self.sets[name] = {
            "datastoreId": DATASTORE, "imageSetId": name, "versionId": version, "imageSetState": "ACTIVE",
            "imageSetWorkflowStatus": "CREATED", "isPrimary": True,
        } | properties, content

    def answer(self, path):
        datastore, name, call, version = PATH.fullmatch(path).groups()
        self.calls.append(call)
        if self.faults:
            status, error = self.faults.pop(0)
            return status, error, json.dumps({"message": f"{name} of DOE^JANE"}).encode()
        if datastore != DATASTORE or name not in self.sets:
            return 404, "ResourceNotFoundException", b"{}"
        properties, content = self.sets[name]
        if call == "getImageSet":
            return 200, None, json.dumps(properties).encode()
        # The version must be the one that was found, not the newest at the time.
        return (200, None, content) if version == properties["versionId"] else (400, "ValidationException", b"{}")
