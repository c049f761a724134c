"""Servers behind a local SageMaker runtime, for tests of streamed answers."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from botocore.config import Config

import tiny
from local import ROOT, emulate, free_port, multi_model, serve

sys.path.insert(0, str(ROOT / "clients/python"))

KEY = {"region_name": "us-east-1", "aws_access_key_id": "local", "aws_secret_access_key": "local"}
LINES = "application/jsonlines"

# Requests to `slow` take about four seconds: 24 frames, of which 8 come at once and the rest at 4 per second.
SLOW = {"AHI_FRAMES_PER_SECOND": "4", "REQUEST_TIMEOUT": "1", "STREAM_TIMEOUT": "60"}


class Broken(BaseHTTPRequestHandler):
    """A container that answers as the custom attributes say: `cut` breaks off, `endless` does not end."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        how = self.headers["X-Amzn-SageMaker-Custom-Attributes"]
        self.send_response(200)
        self.send_header("Content-Type", LINES)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.say(b'{"event":"accepted"}\n')
        try:
            while how == "endless" and not self.server.closing.wait(0.1):
                self.say(b'{"event":"heartbeat"}\n')
        except OSError:
            self.server.left.set()
        self.close_connection = True

    def say(self, content):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def log_message(self, *_):
        pass


class Endpoints:
    """A fast server, a slow one, a multi-model one, a broken one, an asynchronous one, and their images."""

    def __init__(self, folder):
        self.images = tiny.images(folder, slices=24)
        self.request = {"inputs": [self.images.request]}
        self.broken = ThreadingHTTPServer(("127.0.0.1", 0), Broken)
        self.broken.closing, self.broken.left = threading.Event(), threading.Event()
        threading.Thread(target=self.broken.serve_forever, daemon=True).start()
        ports = {name: free_port() for name in ("quick", "slow", "models")}
        url = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        endpoints = {
            "quick": {"url": url["quick"]},
            "slow": {"url": url["slow"]},
            "models": {"url": url["models"], "multiModel": {"s3Prefix": "s3://models/"}},
            "broken": {"url": f"http://127.0.0.1:{self.broken.server_port}"},
            "queue": {"url": url["quick"], "async": {
                "s3OutputPath": "s3://results/out", "s3FailurePath": "s3://results/failed"}},
        }
        (folder / "endpoints.json").write_text(json.dumps(endpoints))
        self.aws = emulate(self.images.store, "--endpoints", folder / "endpoints.json", "--sagemaker-port", 0,
                           "--stream-timeout", 20)
        s3, sagemaker = self.aws.next_address(), self.aws.next_address()
        model = tiny.bundle(folder / "model", 3)
        outputs = {"S3_ENDPOINT_URL": s3, "S3_PATH_STYLE": "true"}
        self.quick = serve(model, self.aws.address, port=ports["quick"], **outputs)
        self.slow = serve(model, self.aws.address, port=ports["slow"], **SLOW)
        self.models = multi_model(self.aws.address, port=ports["models"])
        config = Config(retries={"max_attempts": 1}, read_timeout=120)
        self.s3 = boto3.client("s3", endpoint_url=s3, config=config, **KEY)
        self.runtime = boto3.client("sagemaker-runtime", endpoint_url=sagemaker, config=config, **KEY)
        for bucket in ("models", "results", "input"):
            self.s3.create_bucket(Bucket=bucket)

    def close(self):
        self.broken.closing.set()
        for program in (self.models, self.slow, self.quick, self.aws):
            program.__exit__()
        self.broken.shutdown()

    def stream(self, endpoint, request=None, **parameters):
        """The answer of `InvokeEndpointWithResponseStream`, and its parts."""
        return self.runtime.invoke_endpoint_with_response_stream(
            EndpointName=endpoint, ContentType="application/json", Accept=LINES,
            Body=json.dumps(request or self.request).encode(), **parameters,
        )


def events(parts):
    """The events of an AWS event stream, whose parts may end anywhere."""
    text = b"".join(part["PayloadPart"]["Bytes"] for part in parts)
    return [json.loads(line) for line in text.splitlines()]


def names(events):
    return [event["event"] for event in events]
