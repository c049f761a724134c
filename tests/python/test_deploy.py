"""The deployment: its templates and scripts under their linters, and the script against moto's server."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipimport
from importlib.util import module_from_spec
from pathlib import Path

import boto3
import pytest

from image_sets import DATASTORE, ImageSets, document
from local import ROOT

DEPLOY = ROOT / "scripts/deploy"
PARAMETERS = {
    "ImageTag": "abc123",
    "ModelBucket": "models",
    "ModelKey": "ct/model.tar.gz",
    "DatastoreId": DATASTORE,
    "DataBucket": "data",
    # moto does not know newer ones.
    "InstanceType": "ml.c5.2xlarge",
}


def tool(name, *arguments):
    """Runs a linter of the test environment."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed; see tests/python/requirements.txt"
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_templates_are_clean():
    tool("cfn-lint", *DEPLOY.glob("*.yaml"), ROOT / "docker/cloudwatch-alarms.yaml")


def test_dockerfile_is_clean():
    tool("hadolint", "Dockerfile")


def test_shell_scripts_are_clean():
    tool("shellcheck", "-x", *ROOT.glob("scripts/*.sh"), *ROOT.glob("docker/*.sh"))


def test_manifest_is_valid():
    tool("kubernetes-validate", "--strict", ROOT / "docker/kubernetes.yaml")


def test_the_image_starts_as_root_for_sagemaker_and_runs_as_another_user_elsewhere():
    import yaml

    stages = (ROOT / "Dockerfile").read_text().split("\nFROM ")
    runtime = next(stage for stage in stages if " AS runtime\n" in stage.split("\n", 1)[0] + "\n")
    # The last stage is based on it and sets no user.
    assert stages[-1].startswith("runtime\n") and "\nUSER" not in stages[-1]
    assert [line for line in runtime.splitlines() if line.startswith("USER ")] == ["USER 0:0"]

    services = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())["services"]
    assert services["server"]["user"] == "10001:10001"
    for service in services.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]

    documents = yaml.safe_load_all((ROOT / "docker/kubernetes.yaml").read_text())
    pod = next(d for d in documents if d["kind"] == "Deployment")["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] and (context["runAsUser"], context["runAsGroup"]) == (10001, 10001)
    for container in pod["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}

    # And what the README says about plain hosts.
    readme = (ROOT / "docker/README.md").read_text()
    host = readme[readme.index("## A plain host"):]
    assert all(flag in host for flag in ("--user 10001:10001", "--read-only", "--cap-drop ALL"))


def test_buildspec_runs_what_there_is():
    import yaml

    spec = yaml.safe_load((ROOT / "buildspec.yml").read_text())
    assert spec["version"] == 0.2
    commands = [line for phase in spec["phases"].values() for line in phase["commands"]]
    scripts = [word for line in commands for word in line.split() if word.startswith(("scripts/", ".ci/", "docker/"))]
    assert scripts
    for script in scripts:
        assert os.access(ROOT / script, os.X_OK), f"{script} is not there or cannot be run"


class Account:
    """An AWS account in moto, and the script run in it."""

    def __init__(self, url):
        self.environment = {
            "AWS_ENDPOINT_URL": url, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        }
        self.url = url

    def client(self, service):
        return boto3.client(
            service, endpoint_url=self.url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )

    def deploy(self, *arguments):
        command = [sys.executable, DEPLOY / "deploy.py", *arguments]
        return subprocess.run(command, env=os.environ | self.environment, capture_output=True, text=True)

    def up(self, name, **parameters):
        done = self.deploy("up", name, *(f"{key}={value}" for key, value in parameters.items()))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def everything(self):
        """Everything in the services that the template uses, by name."""
        scaling = self.client("application-autoscaling")
        sagemaker = self.client("sagemaker")
        return {
            "stacks": [s["StackName"] for s in self.client("cloudformation").describe_stacks()["Stacks"]],
            "roles": [r["RoleName"] for r in self.client("iam").list_roles()["Roles"]],
            "log groups": [g["logGroupName"] for g in self.client("logs").describe_log_groups()["logGroups"]],
            "models": [m["ModelName"] for m in sagemaker.list_models()["Models"]],
            "configurations": [c["EndpointConfigName"] for c in sagemaker.list_endpoint_configs()["EndpointConfigs"]],
            "endpoints": [e["EndpointName"] for e in sagemaker.list_endpoints()["Endpoints"]],
            "targets": [
                t["ResourceId"]
                for t in scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
            ],
            "policies": sorted(
                p["PolicyName"]
                for p in scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
            ),
            "alarms": sorted(
                a["AlarmName"] for a in self.client("cloudwatch").describe_alarms()["MetricAlarms"]
                # moto creates the alarms of target tracking as the service does, under names of its own.
                if not a["AlarmName"].startswith("TargetTracking")
            ),
            "metrics of logs": sorted(
                made["metricName"] for f in self.client("logs").describe_metric_filters()["metricFilters"]
                for made in f["metricTransformations"]
            ),
            "rules": [r["Name"] for r in self.client("events").list_rules()["Rules"]],
            "queues": self.client("sqs").list_queues().get("QueueUrls", []),
            "functions": [f["FunctionName"] for f in self.client("lambda").list_functions()["Functions"]],
            "mappings": [m["UUID"] for m in self.client("lambda").list_event_source_mappings()["EventSourceMappings"]],
        }


@pytest.fixture
def account(monkeypatch):
    # The server creates resources by calling itself; nothing may reach a real account.
    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    import moto_extensions
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    moto_extensions.ENDPOINT["url"] = f"http://{host}:{port}"
    yield Account(moto_extensions.ENDPOINT["url"])
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/moto-api/reset", method="POST"))
    server.stop()


def policy(account, role=None):
    """Every statement of a role's policies, by its Sid; if no role is named, of the only one there is."""
    iam = account.client("iam")
    if role is None:
        (role,) = account.everything()["roles"]
    statements = {}
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        # moto keeps the policies that a stack creates as Python literals.
        document = ast.literal_eval(document) if isinstance(document, str) else document
        for statement in document["Statement"]:
            statements[statement.get("Sid", f"{name}{len(statements)}")] = statement
    return statements


def test_real_time_multi_model_comes_and_goes(account):
    before = account.everything()
    made = account.up("ct", **PARAMETERS | {"Models": "multi", "ModelKey": "ct/", "MaxInstances": 3})
    there = account.everything()
    print(json.dumps(there, indent=1))
    assert made["outputs"]["EndpointName"] == "ct"
    assert there["endpoints"] == ["ct"] and there["targets"] == ["endpoint/ct/variant/main"]
    assert there["log groups"] == ["/aws/sagemaker/Endpoints/ct"]
    assert there["policies"] == ["ct-requests"]
    assert there["alarms"] == [
        "ct-dependencies", "ct-failures", "ct-inputs", "ct-latency", "ct-memory", "ct-models", "ct-queue", "ct-refused",
    ]
    assert there["metrics of logs"] == [
        "DependencyFailures", "FailedInputs", "Inputs", "ModelFailures", "QueueSeconds", "Refused",
    ]
    filters = account.client("logs").describe_metric_filters(logGroupName=there["log groups"][0])["metricFilters"]
    assert {f["metricTransformations"][0]["metricNamespace"] for f in filters} == {"ahi-inference/ct"} and len(filters) == 6
    assert all(len(there[kind]) == 1 for kind in ("stacks", "roles", "models", "configurations"))

    container = account.client("sagemaker").describe_model(ModelName=there["models"][0])["PrimaryContainer"]
    assert container["Mode"] == "MultiModel" and container["ModelDataUrl"] == "s3://models/ct/"
    assert container["Image"].endswith(".dkr.ecr.us-east-1.amazonaws.com/ahi-inference:abc123")
    assert container["Environment"]["REQUEST_TIMEOUT"] == "58"
    target = account.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert (target["ScalableTargets"][0]["MinCapacity"], target["ScalableTargets"][0]["MaxCapacity"]) == (1, 3)

    # Another run changes nothing. With another value, only that changes, and the parameters not named stay.
    again = account.up("ct")
    assert (again["parameters"], again["outputs"]) == (made["parameters"], made["outputs"])
    assert account.everything() == there
    changed = account.up("ct", MaxInstances=5)
    assert changed["parameters"] == made["parameters"] | {"MaxInstances": "5"}
    target = account.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert target["ScalableTargets"][0]["MaxCapacity"] == 5

    assert account.deploy("down", "ct").returncode == 0
    assert account.everything() == before
    gone = account.deploy("down", "ct")
    assert gone.returncode == 0 and "there is no stack" in gone.stderr


def test_asynchronous_scales_to_zero_by_backlog(account):
    before = account.everything()
    account.up("ct-async", **PARAMETERS | {"Mode": "asynchronous", "InstanceType": "ml.g4dn.xlarge"})
    there = account.everything()
    print(json.dumps(there, indent=1))
    assert there["policies"] == ["ct-async-backlog", "ct-async-wake-up"]
    assert there["alarms"] == [
        f"ct-async-{name}" for name in
        ("dependencies", "failures", "inputs", "memory", "models", "refused", "waiting", "wake-up")
    ]
    assert "QueueSeconds" not in there["metrics of logs"]
    scaling = account.client("application-autoscaling")
    target = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"][0]
    assert target["MinCapacity"] == 0
    policies = {p["PolicyName"]: p for p in scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]}
    backlog = policies["ct-async-backlog"]["TargetTrackingScalingPolicyConfiguration"]
    metric = backlog["CustomizedMetricSpecification"]
    assert metric["MetricName"] == "ApproximateBacklogSizePerInstance"
    assert metric["Dimensions"] == [{"Name": "EndpointName", "Value": "ct-async"}]
    alarms = {a["AlarmName"]: a for a in account.client("cloudwatch").describe_alarms()["MetricAlarms"]}
    wake_up = alarms["ct-async-wake-up"]
    assert wake_up["MetricName"] == "HasBacklogWithoutCapacity"
    assert "ct-async-wake-up" in wake_up["AlarmActions"][0]
    sagemaker = account.client("sagemaker")
    model = sagemaker.describe_model(ModelName=there["models"][0])
    assert model["PrimaryContainer"]["Environment"]["REQUEST_TIMEOUT"] == "3600"
    assert account.deploy("down", "ct-async").returncode == 0
    assert account.everything() == before


def test_gpu_instances_get_a_driver_for_cuda_13(account):
    done = account.up("gpu", **PARAMETERS | {"InstanceType": "ml.g4dn.xlarge"})
    assert done["parameters"]["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    # And it is cleared if the instance is no longer a GPU instance.
    done = account.up("gpu", InstanceType="ml.m5.xlarge")
    assert done["parameters"]["InferenceAmiVersion"] == ""


def test_the_role_may_do_nothing_else(account):
    account.up("ct", **PARAMETERS | {"KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/k"})
    statements = policy(account)
    where = f"arn:aws:medical-imaging:us-east-1:123456789012:datastore/{DATASTORE}"
    assert statements["ReadImageSets"]["Resource"] == f"{where}/imageset/*"
    assert statements["FindImageSets"]["Resource"] == where
    assert statements["ReadModelsAndInput"]["Resource"] == ["arn:aws:s3:::models/ct/model.tar.gz", "arn:aws:s3:::data/requests/*"]
    assert statements["WriteResults"]["Resource"] == "arn:aws:s3:::data/results/*"
    everywhere = set()
    for sid, statement in statements.items():
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert statement["Effect"] == "Allow" and not any("*" in action for action in actions), sid
        if statement["Resource"] == "*":
            everywhere.update(actions)
    # These apply to no resources; a condition limits the latter to its namespaces.
    assert everywhere == {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
    assert statements["WriteMetrics"]["Condition"]


def test_results_are_stored_where_that_is_said(account):
    # One stack after another: moto does not change the policies of an existing role.
    for value, may, always in (("never", False, False), ("on-request", True, False), ("always", True, True)):
        account.up("ct", **PARAMETERS | {"StoreResults": value})
        statements = policy(account)
        assert ("StoreResults" in statements) == may, value
        if may:
            assert statements["StoreResults"]["Action"] == "medical-imaging:StoreDICOMStudy"
            where = f"arn:aws:medical-imaging:us-east-1:123456789012:datastore/{DATASTORE}"
            assert statements["StoreResults"]["Resource"] == where
        [model] = account.client("sagemaker").list_models()["Models"]
        container = account.client("sagemaker").describe_model(ModelName=model["ModelName"])["PrimaryContainer"]
        assert container["Environment"].get("STORE") == ("input" if always else None), value
        assert account.deploy("down", "ct").returncode == 0


def test_a_vpc_is_used_where_given(account):
    account.up("ct", **PARAMETERS | {"SubnetIds": "subnet-1,subnet-2", "SecurityGroupIds": "sg-1"})
    there = account.everything()
    model = account.client("sagemaker").describe_model(ModelName=there["models"][0])
    assert model["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert any("ec2:CreateNetworkInterface" in s["Action"] for s in policy(account).values())


def test_wrong_parameters_are_named(account):
    done = account.deploy("up", "ct", "ImageTagg=x")
    assert done.returncode == 1 and "ImageTagg" in done.stderr and "ImageTag," in done.stderr
    done = account.deploy("up", "ct", "ImageTag")
    assert done.returncode == 1 and "KEY=VALUE" in done.stderr
    done = account.deploy("up", "ct", "ImageTag=x")
    assert done.returncode == 1 and "needs DataBucket, DatastoreId, ModelBucket, ModelKey" in done.stderr
    assert account.deploy("show", "ct").returncode == 1
    assert account.everything()["stacks"] == []


class Watched:
    """An endpoint that receives new image sets.

    moto has no HealthImaging events, so they are sent here; it runs functions only in Docker, so the deployed
    function is called here with the messages in its queue; and it does not evaluate policies. It keeps neither
    Architectures nor LoggingConfig of a function, ignores Rules, and does not remove what a condition has taken
    out of a stack. cfn-lint checks the form of all these.
    """

    def __init__(self, account, **parameters):
        self.account = account
        for bucket in ("models", "data"):
            account.client("s3").create_bucket(Bucket=bucket)
        self.made = account.up("ct-async", **PARAMETERS | {"Mode": "asynchronous", "NewImageSets": "true"} | parameters)
        self.there = account.everything()
        self.sqs = account.client("sqs")
        outputs = self.made["outputs"]
        self.queue, self.failures = outputs["NewImageSetsQueueUrl"], outputs["NewImageSetsFailuresUrl"]
        # moto would look for Docker.
        (mapping,) = self.there["mappings"]
        account.client("lambda").update_event_source_mapping(UUID=mapping, Enabled=False)

    def function(self):
        (name,) = self.there["functions"]
        return self.account.client("lambda").get_function_configuration(FunctionName=name)

    def put(self, detail, kind="Image Set Created", source="aws.medical-imaging"):
        entry = {"Source": source, "DetailType": kind, "Detail": json.dumps(detail)}
        assert self.account.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0

    def receive(self, queue, **options):
        return self.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, **options).get("Messages", [])


def test_new_image_sets_come_to_the_endpoint(account, monkeypatch, tmp_path):
    before = account.everything()
    watched = Watched(account, StoreResults="on-request", Modalities="CT,MR", SettleSeconds=0)
    function = watched.function()
    print(json.dumps(watched.there, indent=1))
    assert "ct-async-new-image-sets" in watched.there["alarms"]
    assert "/aws/lambda/ct-async-new-image-sets" in watched.there["log groups"]
    assert len(watched.there["stacks"]) == 2 and len(watched.there["queues"]) == 2

    # Of all events, only the matching one goes into the queue.
    new = {"datastoreId": DATASTORE, "imagesetId": "7" * 32, "imageSetState": "ACTIVE", "isPrimary": True}
    watched.put(new)
    for other in ({"datastoreId": "f" * 32}, {"isPrimary": False}, {"imageSetState": "LOCKED"}):
        watched.put(new | other)
    watched.put(new, kind="Image Set Updated")
    watched.put(new, source="mine")
    (message,) = watched.receive(watched.queue)
    assert json.loads(message["Body"])["detail"] == new

    # And the packaged function, with its deployed settings, sends it.
    package = tmp_path / "new_image_sets.zip"
    key = f"{watched.made['parameters']['DeployPrefix']}new_image_sets.zip"
    account.client("s3").download_file("models", key, str(package))
    module, _, name = function["Handler"].partition(".")
    spec = zipimport.zipimporter(str(package)).find_spec(module)
    loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    with ImageSets() as store:
        store.add("7" * 32, document())
        settings = {name: str(value) for name, value in function["Environment"]["Variables"].items()}
        addresses = {"AWS_ENDPOINT_URL_MEDICAL_IMAGING": store.url}
        for name_of, value in (account.environment | addresses | settings).items():
            monkeypatch.setenv(name_of, value)
        record = {"messageId": message["MessageId"], "body": message["Body"]}
        assert getattr(loaded, name)({"Records": [record]}, None) == {"batchItemFailures": []}
    s3 = account.client("s3")
    place = f"requests/new-image-sets/ct-async/{'7' * 32}/1"
    assert json.load(s3.get_object(Bucket="data", Key=f"{place}.json")["Body"]) == {
        "inputs": [{"datastoreId": DATASTORE, "imageSetId": "7" * 32, "versionId": "1"}], "store": True,
    }
    # moto answers with an output location of its own.
    assert "sagemaker-output" in json.load(s3.get_object(Bucket="data", Key=f"{place}.sent")["Body"])["outputLocation"]

    # It is deployed again only if something changes.
    assert account.up("ct-async")["parameters"] == watched.made["parameters"]
    assert account.up("ct-async", MinSlices=5)["parameters"]["DeployPrefix"] == watched.made["parameters"]["DeployPrefix"]
    watched.there = account.everything()
    assert int(watched.function()["Environment"]["Variables"]["MIN_SLICES"]) == 5

    assert account.deploy("down", "ct-async").returncode == 0
    assert account.everything() == before


def test_what_cannot_be_sent_is_kept_after_five_deliveries(account):
    watched = Watched(account)
    watched.sqs.send_message(QueueUrl=watched.queue, MessageBody="{", DelaySeconds=0)
    for _ in range(5):
        assert [m["Body"] for m in watched.receive(watched.queue, VisibilityTimeout=0)] == ["{"]
    assert watched.receive(watched.queue) == []
    assert [m["Body"] for m in watched.receive(watched.failures)] == ["{"]
    attributes = watched.sqs.get_queue_attributes(QueueUrl=watched.queue, AttributeNames=["All"])["Attributes"]
    assert int(attributes["VisibilityTimeout"]) >= 6 * watched.function()["Timeout"]
    assert attributes["DelaySeconds"] == "60"


def test_the_function_may_do_nothing_else(account):
    watched = Watched(account, KmsKeyArn="arn:aws:kms:us-east-1:123456789012:key/k")
    (role,) = (name for name in watched.there["roles"] if "NewImageSetsStack" in name)
    statements = policy(account, role)
    actions, resources = {}, set()
    for sid, statement in statements.items():
        named = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert statement["Effect"] == "Allow" and not any("*" in action for action in named), sid
        actions[sid] = named
        resources.add(statement["Resource"])
    assert sorted(action for named in actions.values() for action in named) == [
        "kms:GenerateDataKey", "logs:CreateLogStream", "logs:PutLogEvents", "medical-imaging:GetImageSet",
        "medical-imaging:GetImageSetMetadata", "s3:ListBucket", "s3:PutObject", "sagemaker:InvokeEndpointAsync",
        "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage",
    ]
    assert "*" not in resources
    assert statements["ReadMetadata"]["Resource"].endswith(f":datastore/{DATASTORE}/imageset/*")
    assert statements["InvokeEndpoint"]["Resource"] == "arn:aws:sagemaker:us-east-1:123456789012:endpoint/ct-async"
    where = "requests/new-image-sets/ct-async/*"
    assert statements["WriteRequests"]["Resource"] == f"arn:aws:s3:::data/{where}"
    assert statements["FindRequests"]["Condition"] == {"StringLike": {"s3:prefix": where}}

    # Only the rule may send to the queues.
    attributes = watched.sqs.get_queue_attributes(QueueUrl=watched.queue, AttributeNames=["Policy"])["Attributes"]
    (statement,) = json.loads(attributes["Policy"])["Statement"]
    (rule,) = watched.there["rules"]
    assert statement["Condition"]["ArnEquals"]["aws:SourceArn"].endswith(f":rule/{rule}")


def test_new_image_sets_are_off_unless_they_are_wanted_and_possible(account):
    account.client("s3").create_bucket(Bucket="models")
    wanted = [f"{key}={value}" for key, value in (PARAMETERS | {"NewImageSets": "true"}).items()]
    for words, told in [
        ([], "needs Mode=asynchronous"),
        (["Mode=asynchronous", "RequestFields={"], "RequestFields is no JSON"),
        (["Mode=asynchronous", "RequestFields=[1]"], "RequestFields is a JSON object"),
        (["Mode=asynchronous", 'RequestFields={"inputs": []}'], "RequestFields is a JSON object"),
    ]:
        done = account.deploy("up", "ct", *wanted, *words)
        assert done.returncode == 1 and told in done.stderr, done.stderr
    account.up("ct", **PARAMETERS | {"Mode": "asynchronous"})
    there = account.everything()
    assert there["stacks"] == ["ct"] and not there["rules"] and not there["queues"] and not there["functions"]
    assert "Contents" not in account.client("s3").list_objects_v2(Bucket="models")
