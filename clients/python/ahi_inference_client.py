"""A client of ahi-inference: the server itself, a real-time endpoint, an asynchronous endpoint.

A single file that needs only the standard library; endpoints and outputs in S3 also need boto3.

    report = Server("http://localhost:8080").stream({"inputs": [{"datastoreId": …, "imageSetId": …}]}, progress=print)
    for output in outputs(report):
        Path(output.file_name).write_bytes(output.read())

`invoke` waits for the report, for which a real-time endpoint has 60 s. `stream` has 8 minutes and calls `progress`
with every event as it happens: `accepted`, `queued`, `started`, `progress` (with `stage`, `done` and `total`, for
progress bars), `heartbeat`. `AsyncEndpoint` has up to an hour. All of them raise `Failed` if there is no report.

A request is a dict as described in the server's README, or bytes (a DICOM file, a zip) with `content_type`.
"""

import base64
import contextlib
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

LINES = "application/jsonlines"

# Longer than any silence of a stream, which has a heartbeat after 5 s, and than a real-time endpoint waits.
SILENCE = 70


class Failed(Exception):
    """There is no report. `code` is the server's or that of AWS; `status` is None if there is none."""

    def __init__(self, status, code, message, details=None, request_id=None):
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.details, self.request_id = details or {}, request_id

    @classmethod
    def of(cls, status, body):
        """The failure in the body of an answer, whatever its form."""
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        try:
            document = json.loads(text)
            error = document["error"]
            return cls(status, error["code"], error["message"], error.get("details"), document.get("requestId"))
        except (ValueError, KeyError, TypeError):
            return cls(status, "unknown", text[:1000] or "there is no reason")


class _RealTime:
    """Common to servers and endpoints, which have their own `invoke`, and `_chunks` for the bytes of a stream."""

    def events(self, request, **options):
        """The events of a request as they happen. Closing the generator hangs up, which cancels the work."""
        chunks = self._chunks(request, **options)
        try:
            for line in _lines(chunks):
                yield json.loads(line)
        finally:
            chunks.close()

    def stream(self, request, progress=None, **options):
        """The report of a request; `progress` is called with each event before it."""
        for event in self.events(request, **options):
            if event["event"] == "result":
                return event["report"]
            if event["event"] == "error":
                error = event["error"]
                raise Failed(event["status"], error["code"], error["message"], error["details"], event["requestId"])
            if progress:
                progress(event)
        raise Failed(None, "incomplete", "the stream ended without a result; send the request again")


class Server(_RealTime):
    """A server at a URL. `silence` is the time in seconds after which a silent server is given up."""

    def __init__(self, url, silence=SILENCE):
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise ValueError(f"{url} is not the URL of a server")
        self.url, self.silence = url.rstrip("/"), silence

    def invoke(self, request, **options):
        """The report of a request, for which the server has REQUEST_TIMEOUT."""
        with self._open(request, "application/json", **options) as answer, _broken_connections():
            return json.loads(answer.read())

    def _chunks(self, request, **options):
        with self._open(request, LINES, **options) as answer, _broken_connections():
            while chunk := answer.read1(1 << 16):
                yield chunk

    def _open(self, request, accept, content_type=None, model=None, inference_id=None):
        body, content_type = _body(request, content_type)
        headers = {"Content-Type": content_type, "Accept": accept}
        if model:
            headers["X-Amzn-SageMaker-Target-Model"] = model
        if inference_id:
            headers["X-Amzn-SageMaker-Inference-Id"] = inference_id
        call = urllib.request.Request(f"{self.url}/invocations", body, headers)
        try:
            return urllib.request.urlopen(call, timeout=self.silence)
        except urllib.error.HTTPError as error:
            with error:
                raise Failed.of(error.code, error.read()) from None
        except OSError as error:
            raise Failed(None, "unreachable", f"{self.url}: {error}") from error


class Endpoint(_RealTime):
    """A real-time endpoint of SageMaker. `runtime` is a boto3 client of `sagemaker-runtime`.

    `model` names one of several models in the custom attributes; `target_model` names an archive of a multi-model
    endpoint, for which AWS has no streams.
    """

    def __init__(self, name, runtime=None):
        self.name, self.runtime = name, runtime or _client("sagemaker-runtime")

    def invoke(self, request, target_model=None, **options):
        """The report of a request, for which SageMaker allows 60 s."""
        call = self._call(request, "application/json", **options)
        if target_model:
            call["TargetModel"] = target_model
        with _model_errors():
            return json.loads(self.runtime.invoke_endpoint(**call)["Body"].read())

    def _chunks(self, request, **options):
        call = self._call(request, LINES, **options)
        with _model_errors():
            parts = self.runtime.invoke_endpoint_with_response_stream(**call)["Body"]
            try:
                for part in parts:
                    yield part["PayloadPart"]["Bytes"]
            finally:
                parts.close()

    def _call(self, request, accept, content_type=None, model=None, inference_id=None):
        body, content_type = _body(request, content_type)
        call = {"EndpointName": self.name, "Body": body, "ContentType": content_type, "Accept": accept}
        if model:
            call["CustomAttributes"] = f"model={model}"
        if inference_id:
            call["InferenceId"] = inference_id
        return call


@dataclass
class Job:
    """A request accepted by an asynchronous endpoint."""

    inference_id: str
    output: str
    failure: str | None


class AsyncEndpoint:
    """An asynchronous endpoint of SageMaker. Requests are put below `requests` (`s3://BUCKET/PREFIX`)."""

    def __init__(self, name, requests, runtime=None, s3=None):
        self.name, self.place = name, _s3_uri(requests)
        self.runtime, self.s3 = runtime or _client("sagemaker-runtime"), s3 or _client("s3")

    def submit(self, request, content_type=None, inference_id=None, seconds=3600):
        """Submits a request, which may run for up to `seconds`, at most 3600; returns its job."""
        body, content_type = _body(request, content_type)
        bucket, prefix = self.place
        key = "/".join(filter(None, [prefix.strip("/"), str(uuid.uuid4())]))
        self.s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)
        call = {"InferenceId": inference_id} if inference_id else {}
        taken = self.runtime.invoke_endpoint_async(
            EndpointName=self.name, InputLocation=f"s3://{bucket}/{key}", ContentType=content_type,
            Accept="application/json", InvocationTimeoutSeconds=seconds, **call,
        )
        return Job(taken["InferenceId"], taken["OutputLocation"], taken.get("FailureLocation"))

    def wait(self, job, timeout=3600, progress=None):
        """The report of a job. `progress` is called with an event `waiting` each time it is not there yet."""
        began, pause = time.monotonic(), 0.5
        while True:
            # The failure first: if both are there, the output is from another attempt.
            if job.failure and (failure := self._read(job.failure)) is not None:
                raise Failed.of(None, failure)
            if (report := self._read(job.output)) is not None:
                return json.loads(report)
            waited = time.monotonic() - began
            if waited >= timeout:
                raise Failed(None, "timeout", f"neither {job.output} nor a failure could be read within {timeout} s")
            if progress:
                progress({"event": "waiting", "seconds": round(waited, 3)})
            time.sleep(min(pause, timeout - waited))
            pause = min(2 * pause, 5)

    def invoke(self, request, timeout=3600, progress=None, **options):
        """The report of a request, once it is there."""
        return self.wait(self.submit(request, **options), timeout, progress)

    def _read(self, uri):
        """The bytes of an object; None while it is not there."""
        bucket, key = _s3_uri(uri)
        try:
            return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        except self.s3.exceptions.ClientError as error:
            # What S3 answers to a role that may not list the bucket.
            if error.response["Error"]["Code"] in ("404", "AccessDenied") and key:
                return None
            raise


@dataclass
class Output:
    """One output of a report; `result` is the index of its input's result."""

    result: int
    description: dict
    s3: object = None

    @property
    def kind(self):
        """`dicom-seg`, `nifti` and the like."""
        return self.description["kind"]

    @property
    def file_name(self):
        """The name that the server gave it, without folders."""
        return Path(self.description["fileName"]).name

    def read(self):
        """Its bytes, from the report or from where the server wrote them, verified by their SHA-256."""
        content = self._content()
        if hashlib.sha256(content).hexdigest() != self.description["sha256"]:
            raise Failed(None, "checksum", f"{self.file_name} is not what the server made")
        return content

    def _content(self):
        uri = self.description.get("uri")
        if uri is None:
            if "data" not in self.description:
                raise Failed(None, "omitted", f"{self.file_name} was too large for the answer; set outputS3Uri")
            return base64.b64decode(self.description["data"])
        if uri.startswith("file://"):
            return Path(urllib.request.url2pathname(urllib.parse.urlsplit(uri).path)).read_bytes()
        bucket, key = _s3_uri(uri)
        self.s3 = self.s3 or _client("s3")
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def outputs(report, s3=None):
    """The outputs of all results of a report. `s3` is a boto3 client."""
    for index, result in enumerate(report["results"]):
        for description in result.get("outputs", []):
            yield Output(index, description, s3)


def _body(request, content_type):
    """Body and content type of a request."""
    if isinstance(request, (bytes, bytearray)):
        if not content_type:
            raise ValueError("bytes need a content_type, such as application/dicom or application/zip")
        return bytes(request), content_type
    return json.dumps(request).encode(), content_type or "application/json"


def _lines(chunks):
    """The lines in chunks that may end anywhere."""
    rest = []
    for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield b"".join([*rest, line])
            rest = []
        rest.append(last)
    if any(rest):
        raise Failed(None, "incomplete", "the stream ended in the middle of an event")


def _s3_uri(uri):
    """Bucket and key of `s3://BUCKET/KEY`."""
    place = urllib.parse.urlsplit(uri, allow_fragments=False)
    if place.scheme != "s3" or not place.netloc:
        raise ValueError(f"{uri} is not of the form s3://BUCKET/KEY")
    return place.netloc, uri.split("/", 3)[3] if uri.count("/") > 2 else ""


def _client(service):
    """A boto3 client without retries, except for S3: each attempt would start the server's work anew."""
    import boto3
    from botocore.config import Config

    attempts = 4 if service == "s3" else 1
    return boto3.client(service, config=Config(read_timeout=SILENCE, retries={"total_max_attempts": attempts}))


@contextlib.contextmanager
def _broken_connections():
    """Turns a broken connection into `Failed`."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise Failed(None, "incomplete", f"the connection broke: {error}") from error


@contextlib.contextmanager
def _model_errors():
    """Turns a model's errors and broken streams into `Failed`; other errors of boto3 are left alone."""
    try:
        yield
    except Exception as error:
        response = getattr(error, "response", None)
        if not isinstance(response, dict):
            raise
        code = response.get("Error", {}).get("Code")
        if code == "ModelError":
            raise Failed.of(response.get("OriginalStatusCode"), response.get("OriginalMessage", "")) from error
        if code in ("ModelStreamError", "InternalStreamFailure"):
            raise Failed(None, code, response["Error"].get("Message", "")) from error
        raise
