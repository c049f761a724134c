"""The function that sends new image sets to the endpoint, on its own: S3 and SageMaker are moto's, and
image_sets.py stands in for HealthImaging, which moto lacks."""

import gzip
import json
import re
import sys

import boto3
import moto
import pytest

from image_sets import CT, DATASTORE, ImageSets, document
from local import ROOT

sys.path.insert(0, str(ROOT / "scripts/deploy"))
import new_image_sets  # noqa: E402

IMAGE_SET = "207284eef860ac01c4b2a8de27a6fc11"
STORAGE = "1.2.840.10008.5.1.4.1.1."
SETTINGS = {
    "DATASTORE_ID": DATASTORE, "ENDPOINT_NAME": "ct-async", "REQUEST_BUCKET": "data",
    "REQUEST_PREFIX": "requests/new-image-sets/ct-async/", "REQUEST_FIELDS": "", "REQUEST_TIMEOUT": "1800",
    "STORE_RESULTS": "on-request", "KMS_KEY_ARN": "", "MODALITIES": "CT,MR", "MIN_SLICES": "20", "DERIVED_IMAGES": "false",
}

RULES = new_image_sets.Rules(frozenset({"CT", "MR"}), 20, False)


def event(image_set=IMAGE_SET, **detail):
    """An event as the developer guide shows it."""
    return {
        "version": "0", "id": "7cf0fb1c-8720-4d48-baa3-6eb97b35a10e", "detail-type": "Image Set Created",
        "source": "aws.medical-imaging", "account": "111122223333", "time": "2024-03-14T00:01:00Z", "region": "us-east-1",
        "resources": [f"arn:aws:medical-imaging:us-east-1:111122223333:datastore/{DATASTORE}/imageset/{image_set}"],
        "detail": {
            "imagingVersion": "1.0", "isPrimary": True, "imageSetVersion": "1", "datastoreId": DATASTORE,
            "imagesetId": image_set, "imageSetState": "ACTIVE", "imageSetWorkflowStatus": "CREATED",
        } | detail,
    }


class Account:
    """The function in an account, and its effects."""

    def __init__(self, store, monkeypatch, capsys):
        self.store, self.monkeypatch, self.capsys = store, monkeypatch, capsys
        self.s3 = boto3.client("s3")
        self.s3.create_bucket(Bucket="data")
        self.invoked, self.refusals = [], []
        self.configure()

    def configure(self, **settings):
        for name, value in (SETTINGS | settings).items():
            self.monkeypatch.setenv(name, value)
        new_image_sets.starter.cache_clear()
        runtime = new_image_sets.starter().runtime
        runtime.meta.events.register("provide-client-params.sagemaker-runtime.InvokeEndpointAsync", self.invoke)

    def invoke(self, params, **_):
        if self.refusals:
            raise self.refusals.pop(0)
        self.invoked.append(params)

    def deliver(self, *bodies):
        """Delivers a batch; returns its log lines and the identifiers of the events to deliver again."""
        texts = [body if isinstance(body, str) else json.dumps(body) for body in bodies]
        records = [{"messageId": f"m{number}", "body": text} for number, text in enumerate(texts)]
        answer = new_image_sets.handler({"Records": records}, None)
        log = self.capsys.readouterr().out
        # Not logged, whatever was in the event, the metadata or an error.
        assert not re.search(r"JANE|DOE|4711|requests/|s3:", log), log
        return [json.loads(line) for line in log.splitlines()], [f["itemIdentifier"] for f in answer["batchItemFailures"]]

    def outcome(self, body=None):
        """Outcome and reason for one event; an event that failed is to be delivered again, and no other."""
        (line,), failures = self.deliver(event() if body is None else body)
        assert failures == (["m0"] if line["outcome"] == "failed" else [])
        assert line["endpoint"] == "ct-async"
        return line["outcome"], line.get("reason")

    def objects(self):
        listed = self.s3.list_objects_v2(Bucket="data").get("Contents", [])
        return {item["Key"]: self.s3.get_object(Bucket="data", Key=item["Key"]) for item in listed}


@pytest.fixture
def account(monkeypatch, capsys):
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with ImageSets() as store, moto.mock_aws():
        monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", store.url)
        yield Account(store, monkeypatch, capsys)
        new_image_sets.starter.cache_clear()


def test_a_new_image_set_is_sent_once(account):
    account.store.add(IMAGE_SET, document())
    assert account.outcome() == ("sent", None)
    (invoked,) = account.invoked
    key = f"requests/new-image-sets/ct-async/{IMAGE_SET}/1"
    assert invoked == {
        "EndpointName": "ct-async", "ContentType": "application/json", "InferenceId": f"{IMAGE_SET}-1",
        "InputLocation": f"s3://data/{key}.json", "InvocationTimeoutSeconds": 1800,
    }
    objects = account.objects()
    assert sorted(objects) == [f"{key}.json", f"{key}.sent"]
    assert json.load(objects[f"{key}.json"]["Body"]) == {
        "inputs": [{"datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "1"}], "store": True,
    }
    assert json.load(objects[f"{key}.sent"]["Body"])["outputLocation"].startswith("s3://")

    # Events are delivered at least once.
    assert account.outcome() == ("repeated", None)
    assert len(account.invoked) == 1 and sorted(account.objects()) == sorted(objects)


def test_the_newest_version_is_sent_whatever_the_event_says(account):
    account.store.add(IMAGE_SET, document(), version="3")
    assert account.outcome(event(imageSetVersion="1")) == ("sent", None)
    assert account.invoked[0]["InferenceId"] == f"{IMAGE_SET}-3"
    # Events about this version or the ones before it bring nothing new; one about a later version does.
    assert account.outcome(event(imageSetVersion="3")) == ("repeated", None)
    account.store.add(IMAGE_SET, document(), version="4")
    assert account.outcome(event(imageSetVersion="4")) == ("sent", None)
    assert len(account.invoked) == 2


def test_an_event_may_spell_its_identifier_as_the_api_does(account):
    account.store.add(IMAGE_SET, document())
    told = event()
    told["detail"]["imageSetId"] = told["detail"].pop("imagesetId")
    assert account.outcome(told) == ("sent", None)


def test_fields_of_the_request(account):
    account.store.add(IMAGE_SET, document())
    account.configure(
        STORE_RESULTS="never", REQUEST_FIELDS='{"model": "lungs", "outputs": ["dicom-seg"]}',
        KMS_KEY_ARN="arn:aws:kms:us-east-1:123456789012:key/k",
    )
    assert account.outcome() == ("sent", None)
    for stored in account.objects().values():
        assert stored["ServerSideEncryption"] == "aws:kms" and stored["SSEKMSKeyId"].endswith(":key/k")
        if b"inputs" in (body := stored["Body"].read()):
            request = json.loads(body)
    assert (request["model"], request["outputs"]) == ("lungs", ["dicom-seg"]) and "store" not in request
    # What is set there takes precedence over the default.
    account.configure(REQUEST_FIELDS='{"store": false}')
    assert new_image_sets.starter().settings.fields == {"store": False}
    with pytest.raises(ValueError, match="REQUEST_FIELDS"):
        account.configure(REQUEST_FIELDS='{"inputs": []}')


@pytest.mark.parametrize("reason, metadata", [
    # What the product itself creates, in every form.
    ("made by ahi-inference", document(series={"Modality": "SEG", "Manufacturer": "ahi-inference"})),
    ("made by ahi-inference", document(series={"Manufacturer": "ahi-inference", "ManufacturerModelName": "liver"})),
    ("made by ahi-inference", document(SOPClassUID=f"{STORAGE}7", Manufacturer=["ahi-inference"])),
    ("made by ahi-inference", document(ContributingEquipmentSequence=[{"Manufacturer": "ahi-inference "}])),
    ("modality SEG", document(slices=1, frames=90, series={"Modality": "SEG"}, SOPClassUID=f"{STORAGE}66.4")),
    ("modality SR", document(slices=1, frames=0, series={"Modality": "SR"}, SOPClassUID=f"{STORAGE}88.34")),
    ("modality RTSTRUCT", document(slices=1, frames=0, series={"Modality": "RTSTRUCT"}, SOPClassUID=f"{STORAGE}481.3")),
    ("modality", document(series={"Modality": "DOE^JANE"})),
    ("modality", document(series={"Modality": None})),
    # Of the source's modality, but not images of a patient.
    ("no images", document(SOPClassUID=f"{STORAGE}7.2")),
    ("no images", document(SOPClassUID=f"{STORAGE}66.7")),
    ("no images", document(SOPClassUID=None)),
    ("no images", document(frames=0)),
    ("too few slices", document(slices=19)),
    ("derived images", document(ImageType=["DERIVED", "SECONDARY", "MPR"])),
    ("derived images", document(ImageType="DERIVED\\PRIMARY")),
    # Not in the documented form.
    ("modality", {}),
    ("modality", []),
    ("modality", {"Study": {"Series": []}}),
    ("modality", {"Study": {"Series": {"1": {"DICOM": 3, "Instances": {"1": 3, "2": {"DICOM": [], "ImageFrames": 3}}}}}}),
    # These are sent.
    (None, document(slices=1, frames=20, SOPClassUID=f"{STORAGE}2.1")),
    (None, document(series={"Modality": "MR"}, SOPClassUID=f"{STORAGE}4")),
    (None, document(series={"Manufacturer": "ahi-inference", "ManufacturerModelName": "phantom"})),
    (None, document(ImageType=None, ContributingEquipmentSequence=["?", {"Manufacturer": "ACME"}])),
])
def test_what_is_segmented(reason, metadata):
    assert new_image_sets.refusal(metadata, RULES) == reason


def test_a_result_starts_nothing(account):
    account.store.add(IMAGE_SET, document(series={"Modality": "SEG", "Manufacturer": "ahi-inference"}))
    assert account.outcome() == ("ignored", "made by ahi-inference")
    assert not account.invoked and not account.objects()


def test_derived_images_are_sent_where_they_are_wanted(account):
    account.store.add(IMAGE_SET, document(slices=1, ImageType=["DERIVED", "SECONDARY", "MPR"]))
    account.configure(MIN_SLICES="1")
    assert account.outcome() == ("ignored", "derived images")
    account.configure(MIN_SLICES="1", DERIVED_IMAGES="true")
    assert account.outcome() == ("sent", None)


def test_classes_without_images_are_those_of_the_server():
    source = (ROOT / "src/dicom/classes.rs").read_text()

    def table(name):
        return re.findall(r'\(?"([0-9.]+)"', re.search(rf"const {name}: [^=]+ = \[(.*?)\];", source, re.DOTALL)[1])

    refused = [*table("WITHOUT_IMAGES"), *table("DERIVED"), *(f"481.{n}" for n in table("RADIOTHERAPY")), "7", "7.4"]
    slices = table("SLICES")
    assert len(refused) > 25 and len(slices) > 10 and CT == f"{STORAGE}{slices[0]}"
    for name in refused:
        assert not new_image_sets.has_image({"SOPClassUID": STORAGE + name.rstrip(".")}), name
    for name in slices:
        assert new_image_sets.has_image({"SOPClassUID": STORAGE + name}), name


def test_the_state_of_an_image_set(account):
    for outcome, properties in [
        (("ignored", "not active"), {"imageSetState": "DELETED"}),
        (("ignored", "not primary"), {"isPrimary": False}),
        (("failed", "image set is being changed"), {"imageSetState": "LOCKED"}),
        (("failed", "version is no number"), {"versionId": "../1"}),
    ]:
        account.store.add(IMAGE_SET, document(), **properties)
        assert account.outcome() == outcome
        assert account.store.calls.pop() == "getImageSet" and not account.store.calls
        assert not account.invoked and not account.objects()


def test_one_that_is_gone_is_ignored(account):
    assert account.outcome() == ("ignored", "deleted")


def test_throttling_is_met(account, monkeypatch):
    # Skips boto3's pauses between attempts.
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    account.store.add(IMAGE_SET, document())
    account.store.faults = [(429, "ThrottlingException"), (500, "InternalServerException")]
    assert account.outcome() == ("sent", None)
    assert account.store.calls == ["getImageSet"] * 3 + ["getImageSetMetadata"]
    # Faults that last are left to the queue.
    account.store.faults = [(429, "ThrottlingException")] * 5
    assert account.outcome() == ("failed", "ThrottlingException")
    assert not account.store.faults
    # And an error that no retry fixes is not retried here.
    account.store.calls.clear()
    account.store.faults = [(403, "AccessDeniedException")]
    assert account.outcome() == ("failed", "AccessDeniedException")
    assert account.store.calls == ["getImageSet"]


def test_an_invocation_that_fails_is_made_again(account):
    from botocore.exceptions import ClientError, EndpointConnectionError

    account.store.add(IMAGE_SET, document())
    missing = {"Error": {"Code": "ValidationError", "Message": "Endpoint of s3://data not found."}}
    account.refusals = [ClientError(missing, "InvokeEndpointAsync"), EndpointConnectionError(endpoint_url="s3://data")]
    assert account.outcome() == ("failed", "ValidationError")
    assert account.outcome() == ("failed", "EndpointConnectionError")
    assert [key.rsplit(".")[-1] for key in account.objects()] == ["json"]
    assert account.outcome() == ("sent", None)
    assert account.outcome() == ("repeated", None)


def test_malformed_events(account):
    account.store.add(IMAGE_SET, document())
    for reason, body in [
        ("event is not JSON", ""),
        ("event is not JSON", '{"detail": DOE^JANE'),
        ("event is not JSON", "[" * 100_000),
        ("event names no image set", "[]"),
        ("event names no image set", '"DOE^JANE"'),
        ("event names no image set", "{}"),
        ("event names no image set", event(imagesetId=None)),
        ("event names no image set", event(imagesetId=["207284eef860ac01c4b2a8de27a6fc11"])),
        ("event names no image set", event(image_set="../../DOE/JANE")),
        ("event names no image set", event(image_set=IMAGE_SET + "\n")),
        ("event is of another data store", event(datastoreId="f" * 32)),
        ("event is of another data store", event(datastoreId=None)),
    ]:
        assert account.outcome(body) == ("failed", reason)
        assert not account.store.calls and not account.objects()


def test_malformed_metadata(account):
    for reason, content in [
        ("metadata is not JSON in gzip", b"DOE^JANE"),
        ("metadata is not JSON in gzip", gzip.compress(b"DOE^JANE")),
        ("metadata is not JSON in gzip", gzip.compress(b"\xff")),
        ("metadata is not JSON in gzip", gzip.compress(b"[" * 100_000)),
        ("metadata is cut short", gzip.compress(b'{"Patient": "DOE^JANE"}')[:-9]),
        ("metadata is cut short", b""),
        # 65 MiB of spaces in a few KiB.
        ("metadata is too large", gzip.compress(b" " * (65 << 20))),
    ]:
        account.store.add(IMAGE_SET, content)
        assert account.outcome() == ("failed", reason)
        assert not account.objects()


def test_one_event_of_a_batch_does_not_hold_up_the_others(account):
    account.store.add(IMAGE_SET, document())
    lines, failures = account.deliver("{", event(), event())
    assert [line["outcome"] for line in lines] == ["failed", "sent", "repeated"]
    assert failures == ["m0"]
