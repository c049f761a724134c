"""The published workshop from beginning to end with boto3, with all of AWS on this machine.

Data store, upload, import job, multi-model endpoint, asynchronous endpoint, results in S3. The tests run in this
order on one set of programs, and each builds on what the previous ones created.
"""

import hashlib
import io
import json
import os
import sys
import tarfile
import threading
import time
import uuid

import boto3
import highdicom
import numpy as np
import pydicom
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import tiny
from local import ROOT, emulate, free_port, get, multi_model, run, serve
from traffic import ask

LIMIT = 25 << 20
ROLE = "arn:aws:iam::000000000000:role/healthimaging"


class Workshop:
    """The programs, their clients, and what the tests pass on to each other."""

    def __init__(self, folder):
        self.folder = folder
        ports = {"models": free_port(), "queue": free_port()}
        endpoints = {
            "workshop": {"url": f"http://127.0.0.1:{ports['models']}",
                         "multiModel": {"s3Prefix": "s3://workshop-models/published/"}, "async": None},
            "workshop-async": {"url": f"http://127.0.0.1:{ports['queue']}", "multiModel": None,
                               "async": {"s3OutputPath": "s3://workshop-results/async/out",
                                         "s3FailurePath": "s3://workshop-results/async/failed",
                                         "maxConcurrentInvocationsPerInstance": 1}},
            "single": {"url": f"http://127.0.0.1:{ports['queue']}"},
            "nobody": {"url": f"http://127.0.0.1:{free_port()}"},
        }
        (folder / "endpoints.json").write_text(json.dumps(endpoints))
        self.aws = emulate(folder / "store", "--endpoints", folder / "endpoints.json", "--sagemaker-port", 0)
        s3, sagemaker = self.aws.next_address(), self.aws.next_address()
        outputs = {"S3_ENDPOINT_URL": s3, "S3_PATH_STYLE": "true"}
        # Room for one model of the phantom's size with a single session, so that loading another unloads it.
        self.models = multi_model(
            self.aws.address, "--memory-budget-bytes", 150_000_000, port=ports["models"], CPU_THREADS="1",
            EXECUTION_PROVIDERS="cpu", **outputs)
        self.queue = serve(ROOT / "model/ct_phantom", self.aws.address, port=ports["queue"], **outputs)
        key = {"region_name": "us-east-1", "aws_access_key_id": "local", "aws_secret_access_key": "local"}
        once = {"retries": {"max_attempts": 1}, "read_timeout": 120}
        self.s3 = boto3.client("s3", endpoint_url=s3, config=Config(**once), **key)
        self.ahi = boto3.client("medical-imaging", endpoint_url=self.aws.address,
                                config=Config(inject_host_prefix=False, **once), **key)
        self.runtime = boto3.client("sagemaker-runtime", endpoint_url=sagemaker, config=Config(**once), **key)

    def close(self):
        for program in (self.queue, self.models, self.aws):
            program.__exit__()

    def object(self, uri):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return self.s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    def wait_for(self, *uris, seconds=120):
        """The first of these objects to appear, as its URI and its bytes."""
        for _ in range(seconds * 10):
            for uri in uris:
                try:
                    return uri, self.object(uri)
                except self.s3.exceptions.NoSuchKey:
                    time.sleep(0.1)
        raise AssertionError(f"none of {uris} came")

    def invoke(self, body, endpoint="workshop", **parameters):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.runtime.invoke_endpoint(
            EndpointName=endpoint, ContentType="application/json", Body=content, **parameters
        )

    def queue_up(self, body, **parameters):
        key = f"requests/{uuid.uuid4()}.json"
        self.s3.put_object(Bucket="workshop-input", Key=key, Body=json.dumps(body).encode())
        return self.runtime.invoke_endpoint_async(
            EndpointName="workshop-async", ContentType="application/json",
            InputLocation=f"s3://workshop-input/{key}", **parameters,
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    running = Workshop(tmp_path_factory.mktemp("workshop"))
    yield running
    running.close()


def pack(folder, name):
    """A bundle as `tar czf` packs it."""
    with tarfile.open(name, "w:gz") as archive:
        archive.add(folder, ".")
    return str(name)


def refusal(call, *arguments, **parameters):
    with pytest.raises(ClientError) as error:
        call(*arguments, **parameters)
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response


def check_seg(content, folder):
    """Checks that a DICOM SEG of the phantom agrees with the phantom's truth."""
    seg = highdicom.seg.segread(io.BytesIO(content))
    assert pydicom.dcmread(io.BytesIO(content)).SOPClassUID == pydicom.uid.SegmentationStorage
    sources = [pydicom.dcmread(file, stop_before_pixels=True) for file in (folder / "dicom").iterdir()]
    sources.sort(key=lambda source: source.ImagePositionPatient[2])
    frames = seg.get_pixels_by_source_instance(
        [source.SOPInstanceUID for source in sources], combine_segments=True, relabel=False,
        assert_missing_frames_are_empty=True,
    )
    labels, truth = np.asarray(frames).transpose(2, 1, 0), np.load(folder / "truth.npy")
    for number in seg.segment_numbers:
        found, true = labels == number, truth == number
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85, number


def test_upload(workshop):
    for bucket in ("workshop-input", "workshop-models", "workshop-results"):
        workshop.s3.create_bucket(Bucket=bucket)
    assert refusal(workshop.s3.create_bucket, Bucket="workshop-input")[0].startswith("BucketAlready")
    workshop.phantom = workshop.folder / "phantom"
    run("phantom", "--out", workshop.phantom, "--size", 96, "--slices", 64)
    for file in (workshop.phantom / "dicom").iterdir():
        workshop.s3.upload_file(str(file), "workshop-input", f"ct/case 1/{file.name}")
    pages = workshop.s3.get_paginator("list_objects_v2").paginate(
        Bucket="workshop-input", Prefix="ct/", PaginationConfig={"PageSize": 10}
    )
    assert sum(len(page["Contents"]) for page in pages) == 64
    # Larger than one part.
    large = os.urandom(20 << 20)
    workshop.s3.upload_fileobj(io.BytesIO(large), "workshop-input", "large.bin")
    back = io.BytesIO()
    workshop.s3.download_fileobj("workshop-input", "large.bin", back)
    assert back.getvalue() == large


def test_who_may_call(workshop):
    other = boto3.client("s3", endpoint_url=workshop.s3.meta.endpoint_url, region_name="us-east-1",
                         aws_access_key_id="local", aws_secret_access_key="other")
    assert refusal(other.list_buckets)[:2] == ("SignatureDoesNotMatch", 403)
    for client, method, path in [(workshop.s3, "GET", "/workshop-input"), (workshop.ahi, "GET", "/datastore"),
                                 (workshop.runtime, "POST", "/endpoints/single/invocations")]:
        assert ask(client.meta.endpoint_url, method, path).status == 403


def start(workshop, **changed):
    parameters = {
        "jobName": "workshop", "dataAccessRoleArn": ROLE, "datastoreId": workshop.datastore,
        "inputS3Uri": "s3://workshop-input/ct/", "outputS3Uri": "s3://workshop-results/import/",
    }
    return workshop.ahi.start_dicom_import_job(**parameters | changed)


def ended(workshop, job):
    """The properties of a job once it has ended, and the states seen until then."""
    seen = [job["jobStatus"]]
    while seen[-1] in ("SUBMITTED", "IN_PROGRESS"):
        time.sleep(0.02)
        answer = workshop.ahi.get_dicom_import_job(datastoreId=workshop.datastore, jobId=job["jobId"])
        seen.append(answer["jobProperties"]["jobStatus"])
    return answer["jobProperties"], seen


def test_import_job(workshop):
    made = workshop.ahi.create_datastore(datastoreName="workshop")
    workshop.datastore = made["datastoreId"]
    listed = workshop.ahi.list_datastores(datastoreStatus="ACTIVE")["datastoreSummaries"]
    assert workshop.datastore in [store["datastoreId"] for store in listed]
    workshop.s3.put_object(Bucket="workshop-input", Key="ct/readme.txt", Body=b"not DICOM")
    job, seen = ended(workshop, start(workshop))
    print(seen)
    assert seen[0] == "SUBMITTED" and seen[-1] == "COMPLETED", job
    assert job["endedAt"] >= job["submittedAt"] and job["jobName"] == "workshop"
    folder = f"s3://workshop-results/import/{workshop.datastore}-DicomImport-{job['jobId']}"
    manifest = json.loads(workshop.object(f"{folder}/job-output-manifest.json"))["jobSummary"]
    counts = [manifest[f"numberOf{what}"] for what in (
        "ScannedFiles", "ImportedFiles", "FilesWithCustomerError", "FilesWithServerError", "GeneratedImageSets")]
    assert counts == [65, 64, 1, 0, 1]
    assert manifest["successOutputS3Uri"] == f"{folder}/SUCCESS/"
    lines = [json.loads(line) for line in workshop.object(f"{folder}/SUCCESS/success.ndjson").splitlines()]
    names = {f"ct/case 1/{file.name}" for file in (workshop.phantom / "dicom").iterdir()}
    assert {line["inputFile"] for line in lines} == names
    [image_set] = {line["importResponse"]["imageSetId"] for line in lines}
    [failure] = workshop.object(f"{folder}/FAILURE/failure.ndjson").splitlines()
    failure = json.loads(failure)
    assert failure["inputFile"] == "ct/readme.txt" and "DICOM" in failure["exception"]["message"]
    workshop.request = {"inputs": [{"datastoreId": workshop.datastore, "imageSetId": image_set}]}


def test_import_jobs_that_are_not_right(workshop):
    token = str(uuid.uuid4())
    for what, changed in [("no objects", {"inputS3Uri": "s3://workshop-input/none/"}),
                          ("nowhere", {"outputS3Uri": "s3://nowhere/import/", "clientToken": token})]:
        job, seen = ended(workshop, start(workshop, **changed))
        assert seen[-1] == "FAILED" and what in job["message"], job
    # The same request again returns the same job.
    again = start(workshop, outputS3Uri="s3://nowhere/import/", clientToken=token)
    assert again["jobId"] == job["jobId"]
    assert refusal(start, workshop, clientToken=token)[:2] == ("ConflictException", 409)
    for changed in ({"inputS3Uri": "s3://workshop-input/../x"}, {"outputS3Uri": "s3://A_B/x"}):
        assert refusal(start, workshop, **changed)[0] == "ValidationException"
    unknown = {"datastoreId": workshop.datastore, "jobId": "0" * 32}
    assert refusal(workshop.ahi.get_dicom_import_job, **unknown)[0] == "ResourceNotFoundException"
    pages = workshop.ahi.get_paginator("list_dicom_import_jobs")
    states = [job["jobStatus"]
              for page in pages.paginate(datastoreId=workshop.datastore, PaginationConfig={"PageSize": 2})
              for job in page["jobSummaries"]]
    assert states == ["FAILED", "FAILED", "COMPLETED"]
    failed = workshop.ahi.list_dicom_import_jobs(datastoreId=workshop.datastore, jobStatus="FAILED")
    assert len(failed["jobSummaries"]) == 2


def loaded(workshop):
    return {model["modelUrl"].split("/")[-2] for model in json.loads(get(f"{workshop.models.address}/models")[2])["models"]}


def hash_of(uri):
    """The platform's name for a model."""
    return hashlib.sha256(uri.encode()).hexdigest()[:32]


def test_multi_model_endpoint(workshop):
    archive = pack(ROOT / "model/ct_phantom", workshop.folder / "model.tar.gz")
    workshop.s3.upload_file(archive, "workshop-models", "published/model.tar.gz")
    answers = []

    def client():
        answers.append(workshop.invoke(workshop.request, TargetModel="model.tar.gz", InferenceId="case-7",
                                       Accept="application/json"))

    # Loaded once, no matter how many clients ask for it first.
    clients = [threading.Thread(target=client) for _ in range(3)]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    assert len(answers) == 3 and len(loaded(workshop)) == 1
    assert sum("model loaded" in line for line in workshop.aws.log) == 1
    answer = json.loads(answers[0]["Body"].read())
    assert answers[0]["ContentType"] == "application/json"
    assert answers[0]["InvokedProductionVariant"] == "AllTraffic"
    assert answer["inferenceId"] == "case-7"
    assert answer["results"][0]["geometry"]["dimensions"] == [96, 96, 64]
    seg = workshop.invoke(workshop.request, TargetModel="model.tar.gz", Accept="application/dicom")
    assert seg["ContentType"] == "application/dicom"
    check_seg(seg["Body"].read(), workshop.phantom)


def test_another_model_without_a_restart(workshop):
    first = loaded(workshop)
    tiny.bundle(workshop.folder / "tiny/model", 3)
    archive = pack(workshop.folder / "tiny", workshop.folder / "tiny.tar.gz")
    workshop.s3.upload_file(archive, "workshop-models", "published/more/tiny.tar.gz")
    answer = json.loads(workshop.invoke(workshop.request, TargetModel="more/tiny.tar.gz")["Body"].read())
    assert answer["results"][0]["segments"][0]["label"] == "Model 3"
    assert len(loaded(workshop) | first) == 2


def test_the_least_recently_used_model_makes_room(workshop):
    archive = str(workshop.folder / "model.tar.gz")
    workshop.s3.upload_file(archive, "workshop-models", "published/second.tar.gz")
    for target in ("second.tar.gz", "model.tar.gz", "more/tiny.tar.gz", "second.tar.gz"):
        label = json.loads(workshop.invoke(workshop.request, TargetModel=target)["Body"].read())
        assert label["results"][0]["segments"], target
    # There is room for only one of the two large ones.
    large = {name: hash_of(f"s3://workshop-models/published/{name}.tar.gz") for name in ("second", "model")}
    assert large["second"] in loaded(workshop) and large["model"] not in loaded(workshop)
    assert any("unloaded to make room" in line for line in workshop.aws.log)


def test_models_and_requests_that_are_not_right(workshop):
    call = workshop.invoke
    workshop.s3.put_object(Bucket="workshop-models", Key="published/broken.tar.gz", Body=b"not an archive")
    code, status, response = refusal(call, workshop.request, TargetModel="liver.tar.gz")
    assert (code, status) == ("ValidationError", 400)
    assert "published/liver.tar.gz" in response["Error"]["Message"]
    for target in ("broken.tar.gz", "../escape.tar.gz"):
        assert refusal(call, workshop.request, TargetModel=target)[:2] == ("ValidationError", 400)
    assert refusal(call, workshop.request)[:2] == ("ValidationError", 400)
    code, status, response = refusal(call, workshop.request, endpoint="unknown")
    assert (code, status) == ("ValidationError", 400) and "unknown" in response["Error"]["Message"]
    # A bundle that the server refuses, and a request that it refuses.
    with tarfile.open(workshop.folder / "empty.tar.gz", "w:gz") as archive:
        archive.add(ROOT / "LICENSE", "LICENSE")
    workshop.s3.upload_file(str(workshop.folder / "empty.tar.gz"), "workshop-models", "published/empty.tar.gz")
    for body, target, original in [(workshop.request, "empty.tar.gz", "invalid_model"),
                                   ({"inputs": []}, "more/tiny.tar.gz", "invalid_request")]:
        code, status, response = refusal(call, body, TargetModel=target)
        assert (code, status) == ("ModelError", 424), response
        assert json.loads(response["OriginalMessage"])["error"]["code"] == original
        assert 400 <= response["OriginalStatusCode"] < 500
    code, status, response = refusal(call, b" " * (LIMIT + 1), TargetModel="more/tiny.tar.gz")
    assert status == 413 and str(LIMIT) in response["Error"]["Message"], response
    padded = json.dumps(workshop.request).encode().ljust(LIMIT)
    assert call(padded, TargetModel="more/tiny.tar.gz")["ContentType"] == "application/json"
    assert refusal(call, workshop.request, endpoint="nobody")[:2] == ("ServiceUnavailable", 503)


def test_a_server_that_was_started_anew_gets_its_models_again(workshop):
    port = int(workshop.models.address.rsplit(":", 1)[1])
    workshop.models.__exit__()
    workshop.models = multi_model(workshop.aws.address, port=port)
    answer = json.loads(workshop.invoke(workshop.request, TargetModel="more/tiny.tar.gz")["Body"].read())
    assert answer["results"][0]["segments"][0]["label"] == "Model 3"


def test_single_model_endpoint(workshop):
    answer = json.loads(workshop.invoke(workshop.request, endpoint="single")["Body"].read())
    assert answer["results"][0]["executionProvider"] in ("OpenVINOExecutionProvider", "CPUExecutionProvider")


def test_asynchronous_endpoint(workshop):
    request = workshop.request["inputs"][0] | {"outputS3Uri": "s3://workshop-results/segmentations"}
    accepted = [workshop.queue_up(request, InferenceId=f"study-{n}", RequestTTLSeconds=600,
                                  InvocationTimeoutSeconds=300) for n in range(3)]
    for number, answer in enumerate(accepted):
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
        assert answer["InferenceId"] == f"study-{number}"
        assert answer["OutputLocation"].startswith("s3://workshop-results/async/out/")
        assert answer["FailureLocation"].startswith("s3://workshop-results/async/failed/")
        came, body = workshop.wait_for(answer["OutputLocation"], answer["FailureLocation"])
        assert came == answer["OutputLocation"], body
        report = json.loads(body)
        assert report["inferenceId"] == f"study-{number}"
        [output] = report["results"][0]["outputs"]
        assert output["uri"].startswith("s3://workshop-results/segmentations/")
        check_seg(workshop.object(output["uri"]), workshop.phantom)


def test_asynchronous_requests_that_are_not_right(workshop):
    for request, code in [({"inputs": []}, "invalid_request"),
                          ({"datastoreId": workshop.datastore, "imageSetId": "0" * 32}, "not_found")]:
        answer = workshop.queue_up(request)
        came, body = workshop.wait_for(answer["OutputLocation"], answer["FailureLocation"])
        assert came == answer["FailureLocation"]
        assert json.loads(body)["error"]["code"] == code
    call = {"EndpointName": "workshop-async", "InputLocation": "s3://workshop-input/requests/none.json"}
    answer = workshop.runtime.invoke_endpoint_async(**call)
    _, body = workshop.wait_for(answer["FailureLocation"])
    assert b"requests/none.json" in body
    for changed in ({"EndpointName": "workshop"}, {"EndpointName": "unknown"}, {"InputLocation": "https://host/x"},
                    {"S3OutputPathExtension": "x"}):
        assert refusal(workshop.runtime.invoke_endpoint_async, **call | changed)[:2] == ("ValidationError", 400)
    code, status, response = refusal(workshop.invoke, workshop.request, endpoint="workshop-async")
    assert (code, status) == ("ValidationError", 400) and "InvokeEndpointAsync" in response["Error"]["Message"]


def test_new_image_sets(workshop, monkeypatch, capsys):
    """The function of scripts/deploy, with the events that HealthImaging would send: an image set is segmented
    once, and its result triggers nothing."""
    sys.path.insert(0, str(ROOT / "scripts/deploy"))
    import new_image_sets

    settings = {
        "DATASTORE_ID": workshop.datastore, "ENDPOINT_NAME": "workshop-async", "REQUEST_BUCKET": "workshop-input",
        "REQUEST_PREFIX": "requests/new/", "REQUEST_FIELDS": '{"outputS3Uri": "s3://workshop-results/new"}',
        "REQUEST_TIMEOUT": "300", "STORE_RESULTS": "never", "KMS_KEY_ARN": "", "MODALITIES": "CT", "MIN_SLICES": "20",
        "DERIVED_IMAGES": "false", "AWS_ENDPOINT_URL_MEDICAL_IMAGING": workshop.ahi.meta.endpoint_url,
        "AWS_ENDPOINT_URL_S3": workshop.s3.meta.endpoint_url,
        "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": workshop.runtime.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    new_image_sets.starter.cache_clear()

    def deliver(image_set):
        detail = {"datastoreId": workshop.datastore, "imagesetId": image_set}
        records = [{"messageId": "m", "body": json.dumps({"detail": detail})}]
        assert new_image_sets.handler({"Records": records}, None) == {"batchItemFailures": []}
        return json.loads(capsys.readouterr().out)

    image_set = workshop.request["inputs"][0]["imageSetId"]
    sent = deliver(image_set)
    assert (sent["outcome"], sent["inferenceId"]) == ("sent", f"{image_set}-1")
    assert deliver(image_set)["outcome"] == "repeated"
    [mark] = [item["Key"] for item in workshop.s3.list_objects_v2(Bucket="workshop-input", Prefix="requests/new/")["Contents"]
              if item["Key"].endswith(".sent")]
    output = json.loads(workshop.object(f"s3://workshop-input/{mark}"))["outputLocation"]
    report = json.loads(workshop.wait_for(output, output.replace("/out/", "/failed/"))[1])
    assert report["inferenceId"] == sent["inferenceId"]
    [made] = report["results"][0]["outputs"]
    check_seg(workshop.object(made["uri"]), workshop.phantom)

    # Back into the data store; the local import accepts only pixels of whole bytes.
    result = pydicom.dcmread(io.BytesIO(workshop.object(made["uri"])))
    result.PixelData = result.pixel_array.astype(np.uint8).tobytes()
    result.BitsAllocated, result.BitsStored, result.HighBit = 8, 8, 7
    stored = io.BytesIO()
    result.save_as(stored)
    workshop.s3.put_object(Bucket="workshop-input", Key="made/result.dcm", Body=stored.getvalue())
    job, _ = ended(workshop, start(workshop, inputS3Uri="s3://workshop-input/made/"))
    folder = f"s3://workshop-results/import/{workshop.datastore}-DicomImport-{job['jobId']}"
    [line] = workshop.object(f"{folder}/SUCCESS/success.ndjson").splitlines()
    told = deliver(json.loads(line)["importResponse"]["imageSetId"])
    assert (told["outcome"], told["reason"]) == ("ignored", "made by ahi-inference")
    new_image_sets.starter.cache_clear()
