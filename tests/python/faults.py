"""A server whose AWS breaks: the same requests with and without faults, for scripts/faults.py and the tests."""

import collections
import hashlib
import re
import statistics
from base64 import b64decode
from contextlib import ExitStack
from pathlib import Path

import boto3
from botocore.config import Config

from faulty import Faulty
from local import emulate, get, import_dicom, run, serve
from traffic import ask

BUCKET = "faulty-images"


class Broken:
    """The local AWS behind proxies, a server that uses it through them, and what it answers without faults."""

    def __init__(self, folder, model, size, slices, *flags, seed=1, **environment):
        folder = Path(folder)
        run("phantom", "--out", folder / "phantom", "--size", size, "--slices", slices)
        self.image_set = import_dicom(folder / "phantom/dicom", folder / "store")
        self.stack = ExitStack()
        aws = self.stack.enter_context(emulate(folder / "store"))
        s3 = aws.next_address()
        self.ahi = self.stack.enter_context(Faulty(aws.address, "ahi", seed))
        self.s3 = self.stack.enter_context(Faulty(s3, "s3", seed))
        self.server = self.stack.enter_context(
            serve(model, self.ahi.address, *flags, S3_ENDPOINT_URL=self.s3.address, S3_PATH_STYLE="true",
                  **environment))
        # Straight to S3, past the proxy: what is written there is intact.
        self.bucket = boto3.client(
            "s3", endpoint_url=s3, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test",
            config=Config(s3={"addressing_style": "path"}))
        self.bucket.create_bucket(Bucket=BUCKET)
        for file in sorted((folder / "phantom/dicom").rglob("*.dcm")):
            self.bucket.put_object(Bucket=BUCKET, Key=f"series/{file.name}", Body=file.read_bytes())
        outputs = {"outputs": ["dicom-seg", "nifti"]}
        self.requests = {
            "ahi": self.image_set | outputs,
            "s3": {"s3Uri": f"s3://{BUCKET}/series/"} | outputs,
            "store": self.image_set | outputs | {"outputS3Uri": f"s3://{BUCKET}/out"},
        }
        self.right = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def ask(self, kind, timeout=120):
        return ask(self.server.address, "POST", "/invocations", self.requests[kind], timeout=timeout)

    def result(self, answer):
        """What must be the same whatever broke on the way: segments and the label map."""
        [result] = answer.json()["results"]
        nifti = next(o for o in result["outputs"] if o["kind"] == "nifti")
        if "data" in nifti:
            content = b64decode(nifti["data"])
        else:
            key = nifti["uri"].removeprefix(f"s3://{BUCKET}/")
            content = self.bucket.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert hashlib.sha256(content).hexdigest() == nifti["sha256"]
        return result["segments"], nifti["sha256"]

    def counters(self):
        """Retries and similar counters of the server, over all operations."""
        counts = collections.Counter()
        text = get(f"{self.server.address}/metrics")[2].decode()
        for name, value in re.findall(r"^ahi_inference_(?:ahi|s3)_(\w+)_total\{[^}]*\} (\d+)", text, re.M):
            counts[name] += int(value)
        return counts

    def measure(self, kind, faults, count, proxy="ahi"):
        """Sends `count` requests under `faults`."""
        if kind not in self.right:
            answer = self.ask(kind)
            assert answer.status == 200, answer.body
            self.right[kind] = self.result(answer)
        broken = getattr(self, proxy)
        before, injected = self.counters(), broken.injected.total()
        broken.faults = faults
        try:
            answers = [self.ask(kind) for _ in range(count)]
        finally:
            broken.faults = []
        made = self.counters() - before
        return Measured(self, kind, answers, made, broken.injected.total() - injected)


class Measured:
    """The outcome of a number of requests."""

    def __init__(self, broken, kind, answers, counters, injected):
        self.answers, self.counters, self.injected = answers, counters, injected
        self.wrong = 0
        self.outcomes = collections.Counter()
        for answer in answers:
            if answer.status == 200:
                self.outcomes["200"] += 1
                self.wrong += broken.result(answer) != broken.right[kind]
            elif answer.status > 0:
                self.outcomes[f"{answer.status} {answer.code}"] += 1
            else:
                self.outcomes["no answer"] += 1
        seconds = [answer.seconds for answer in answers]
        self.median, self.longest = statistics.median(seconds), max(seconds)
