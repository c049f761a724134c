"""A Lambda function that sends new image sets of AWS HealthImaging for segmentation.

EventBridge puts HealthImaging's events into a queue, and Lambda passes them to `handler`. An event names an image
set but does not say what is in it, so its metadata is read. Image sets that match the rules go to the asynchronous
endpoint, as requests in S3. new_image_sets.yaml creates all of this.

An event may come several times, and several events may be about the same image set. A request and the marker that
it was sent are named after endpoint, image set and version; a marked request is not sent again. Two deliveries at
the same moment may both send it, but the server's results then have the same UIDs.

A result is never sent: it is recognised by its maker, its SOP class and its modality.

The log has a line of JSON for each event, without attributes of patients or keys in S3. Failed events stay in the
queue, which delivers them a few more times and then moves them to its dead-letter queue.
"""

import functools
import json
import os
import re
import zlib
from dataclasses import dataclass

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

IDENTIFIER = re.compile(r"[0-9a-z]{32}")
VERSION = re.compile(r"[0-9]{1,20}")
# The values of Modality that may go into the log.
MODALITY = re.compile(r"[A-Z]{2,10}")
# The limit for the decompressed metadata of one image set; as JSON it takes a multiple of this.
METADATA_BYTES = 64 << 20

MAKER = "ahi-inference"
# The demo's synthetic CT has the maker's name, but is meant to be segmented.
PHANTOM = "phantom"
STORAGE = "1.2.840.10008.5.1.4.1.1."
# Families of storage classes (PS3.4 annex B.5) whose objects are not images of a patient: Secondary Capture,
# waveforms, presentation states, raw data and objects derived from images (registrations, segmentations, meshes),
# real world values, surface scans, measurements, reports, documents, protocols, radiotherapy.
NO_IMAGES = frozenset({"7", "9", "11", "66", "67", "68", "78", "79", "80", "88", "104", "200", "481"})

# boto3 deals with throttling and faults of AWS first, then the queue.
PATIENCE = {
    "retries": {"mode": "standard", "total_max_attempts": 5}, "connect_timeout": 5, "read_timeout": 20,
}


class Malformed(Exception):
    """An event or an answer that does not have its documented form."""


class NotYet(Exception):
    """An image set that is being changed."""


@dataclass(frozen=True)
class Rules:
    """Which image sets are segmented."""

    modalities: frozenset
    min_slices: int
    derived_images: bool


@dataclass(frozen=True)
class Settings:
    """The settings from new_image_sets.yaml."""

    datastore: str
    endpoint: str
    bucket: str
    prefix: str
    timeout: int
    fields: dict
    kms_key: str
    rules: Rules

    @classmethod
    def of(cls, environment):
        fields = json.loads(environment["REQUEST_FIELDS"] or "{}")
        if not isinstance(fields, dict) or "inputs" in fields:
            raise ValueError("REQUEST_FIELDS is a JSON object with what a request has beside its inputs")
        if environment["STORE_RESULTS"] != "never":
            fields.setdefault("store", True)
        return cls(
            datastore=environment["DATASTORE_ID"], endpoint=environment["ENDPOINT_NAME"],
            bucket=environment["REQUEST_BUCKET"], prefix=environment["REQUEST_PREFIX"],
            timeout=int(environment["REQUEST_TIMEOUT"]), fields=fields, kms_key=environment["KMS_KEY_ARN"],
            rules=Rules(
                modalities=frozenset(environment["MODALITIES"].split(",")),
                min_slices=int(environment["MIN_SLICES"]),
                derived_images=environment["DERIVED_IMAGES"] == "true",
            ),
        )


def child(value, name):
    """The object under a name; an empty one if there is none, since metadata may have any form."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def texts(attributes, keyword):
    """The text values of an attribute; HealthImaging returns a single value with or without a list."""
    found = attributes.get(keyword)
    values = found if isinstance(found, list) else [found]
    return [part.strip() for value in values if isinstance(value, str) for part in value.split("\\")]


def image_set_of(body, datastore):
    """The identifier of the image set that an event is about."""
    try:
        detail = child(json.loads(body), "detail")
    except (TypeError, ValueError, RecursionError):
        raise Malformed("event is not JSON") from None
    # The developer guide uses the former; other parts of the API use the latter.
    found = detail.get("imagesetId", detail.get("imageSetId"))
    if not isinstance(found, str) or not IDENTIFIER.fullmatch(found):
        raise Malformed("event names no image set")
    if detail.get("datastoreId") != datastore:
        raise Malformed("event is of another data store")
    return found


def unpack(blob):
    """The metadata from GetImageSetMetadata: JSON, compressed by gzip."""
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = unzip.decompress(blob, METADATA_BYTES)
        if not unzip.eof:
            raise Malformed("metadata is too large" if len(plain) == METADATA_BYTES else "metadata is cut short")
        return json.loads(plain)
    except (zlib.error, ValueError, RecursionError):
        raise Malformed("metadata is not JSON in gzip") from None


def made_here(attributes):
    """Whether an instance is a result: whether its equipment, or a contributor to it, is this product."""
    contributors = attributes.get("ContributingEquipmentSequence")
    equipment = [attributes, *(contributors if isinstance(contributors, list) else [])]
    return any(
        MAKER in texts(item, "Manufacturer") and PHANTOM not in texts(item, "ManufacturerModelName")
        for item in equipment if isinstance(item, dict)
    )


def has_image(attributes):
    """Whether an instance's class is an image class."""
    name = (texts(attributes, "SOPClassUID") or [""])[0]
    return name.startswith(STORAGE) and name.removeprefix(STORAGE).split(".")[0] not in NO_IMAGES


def instances_of(metadata):
    """Attributes of each instance, including those of its series, and the number of its frames."""
    for series in child(child(metadata, "Study"), "Series").values():
        general = child(series, "DICOM")
        for instance in child(series, "Instances").values():
            frames = instance.get("ImageFrames") if isinstance(instance, dict) else None
            yield general | child(instance, "DICOM"), len(frames) if isinstance(frames, list) else 0


def refusal(metadata, rules):
    """Why an image set is not segmented; None if it is."""
    modalities, images, wanted = set(), 0, 0
    for attributes, frames in instances_of(metadata):
        if made_here(attributes):
            return "made by ahi-inference"
        modalities.update(texts(attributes, "Modality"))
        if has_image(attributes):
            images += frames
            derived = texts(attributes, "ImageType")[:1] == ["DERIVED"]
            wanted += frames if rules.derived_images or not derived else 0
    if not modalities or not modalities <= rules.modalities:
        return " ".join(["modality", *sorted(filter(MODALITY.fullmatch, modalities))])
    if not images:
        return "no images"
    if images < rules.min_slices:
        return "too few slices"
    return "derived images" if wanted < rules.min_slices else None


class Starter:
    """Sends requests for image sets to the endpoint."""

    def __init__(self, settings, ahi, s3, runtime):
        self.settings, self.ahi, self.s3, self.runtime = settings, ahi, s3, runtime

    @classmethod
    def of(cls, environment):
        # A local HealthImaging has one address for all its operations.
        local = "AWS_ENDPOINT_URL_MEDICAL_IMAGING" in environment
        ahi = Config(inject_host_prefix=not local, **PATIENCE)
        return cls(
            Settings.of(environment), boto3.client("medical-imaging", config=ahi),
            *(boto3.client(service, config=Config(**PATIENCE)) for service in ("s3", "sagemaker-runtime")),
        )

    def start(self, image_set):
        """Has an image set segmented if it should be; returns what was done, as fields of a log line."""
        where = {"datastoreId": self.settings.datastore, "imageSetId": image_set}
        try:
            # The newest version: events may be late, and a later one may be about the version read here.
            current = self.ahi.get_image_set(**where)
            if not VERSION.fullmatch(current["versionId"]):
                raise Malformed("version is no number")
            where["versionId"] = current["versionId"]
            if current["imageSetState"] == "LOCKED":
                raise NotYet("image set is being changed")
            if current["imageSetState"] != "ACTIVE":
                return {"outcome": "ignored", "reason": "not active"}
            if current.get("isPrimary") is False:
                return {"outcome": "ignored", "reason": "not primary"}
            inference = f"{image_set}-{where['versionId']}"
            if self.is_marked(where):
                return {"outcome": "repeated", "inferenceId": inference}
            answer = self.ahi.get_image_set_metadata(**where)
        except self.ahi.exceptions.ResourceNotFoundException:
            return {"outcome": "ignored", "reason": "deleted"}
        if reason := refusal(unpack(answer["imageSetMetadataBlob"].read(METADATA_BYTES)), self.settings.rules):
            return {"outcome": "ignored", "reason": reason, "versionId": where["versionId"]}
        self.send(where, inference)
        return {"outcome": "sent", "inferenceId": inference}

    def key(self, where, suffix):
        return f"{self.settings.prefix}{where['imageSetId']}/{where['versionId']}.{suffix}"

    def is_marked(self, where):
        # Listed rather than requested: without permission to list the bucket, a missing object gives 403.
        mark = self.key(where, "sent")
        return self.s3.list_objects_v2(Bucket=self.settings.bucket, Prefix=mark, MaxKeys=1)["KeyCount"] > 0

    def put(self, key, document):
        encryption = {}
        if self.settings.kms_key:
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.settings.kms_key}
        self.s3.put_object(
            Bucket=self.settings.bucket, Key=key, ContentType="application/json",
            Body=json.dumps(document, sort_keys=True).encode(), **encryption,
        )

    def send(self, where, inference):
        """The request, the invocation, the marker, in this order: a fault in between does not lose a request."""
        request = self.key(where, "json")
        self.put(request, {"inputs": [where], **self.settings.fields})
        answer = self.runtime.invoke_endpoint_async(
            EndpointName=self.settings.endpoint, ContentType="application/json", InferenceId=inference,
            InputLocation=f"s3://{self.settings.bucket}/{request}",
            InvocationTimeoutSeconds=self.settings.timeout,
        )
        self.put(self.key(where, "sent"), {"outputLocation": answer.get("OutputLocation")})


@functools.cache
def starter():
    return Starter.of(os.environ)


def handle(body):
    """Handles one event; returns the fields of its log line."""
    told = {}
    try:
        told["imageSetId"] = image_set_of(body, starter().settings.datastore)
        return told | starter().start(told["imageSetId"])
    except (Malformed, NotYet) as error:
        return told | {"outcome": "failed", "reason": str(error)}
    except ClientError as error:
        # Only the code: a message may name objects in a bucket.
        return told | {"outcome": "failed", "reason": error.response["Error"]["Code"]}
    except BotoCoreError as error:
        return told | {"outcome": "failed", "reason": type(error).__name__}


def handler(event, _context):
    """Handles a batch of events; those that failed are delivered again (ReportBatchItemFailures)."""
    failures = []
    for record in event["Records"]:
        told = handle(record["body"])
        print(json.dumps({"endpoint": starter().settings.endpoint} | told))
        if told["outcome"] == "failed":
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}
