"""The deployment: its templates and scripts under their linters, and the script against moto's server."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from local import ROOT

DEPLOY = ROOT / "scripts/deploy"
DATASTORE = "0123456789abcdef0123456789abcdef"
PARAMETERS = {
    "ImageTag": "abc123",
    "ModelBucket": "models",
    "ModelKey": "ct/model.tar.gz",
    "DatastoreId": DATASTORE,
    "DataBucket": "data",
    # Newer ones are not known to moto.
    "InstanceType": "ml.c5.2xlarge",
}


def tool(name, *arguments):
    """Runs a linter of the test environment."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is not installed; see tests/python/requirements.txt"
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_templates_are_clean():
    tool("cfn-lint", *DEPLOY.glob("*.yaml"))


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
    # The last stage is made of it and names no user of its own.
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

    # And what is said of plain hosts.
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
    """An AWS account of moto, and the script run in it."""

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
        """Everything there is of the services that the template uses, by name."""
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
                # moto makes the alarms of target tracking as the service does, under names of its own.
                if not a["AlarmName"].startswith("TargetTracking")
            ),
        }


@pytest.fixture
def account(monkeypatch):
    # The server makes resources by calling itself; nothing may reach a real account.
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


def policy(account):
    """Every statement of the role's policies, by its Sid."""
    iam = account.client("iam")
    role = iam.list_roles()["Roles"][0]["RoleName"]
    statements = {}
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        # moto keeps those that a stack makes as Python writes them.
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
    assert there["alarms"] == ["ct-failures", "ct-latency", "ct-memory"]
    assert all(len(there[kind]) == 1 for kind in ("stacks", "roles", "models", "configurations"))

    container = account.client("sagemaker").describe_model(ModelName=there["models"][0])["PrimaryContainer"]
    assert container["Mode"] == "MultiModel" and container["ModelDataUrl"] == "s3://models/ct/"
    assert container["Image"].endswith(".dkr.ecr.us-east-1.amazonaws.com/ahi-inference:abc123")
    assert container["Environment"]["REQUEST_TIMEOUT"] == "60"
    target = account.client("application-autoscaling").describe_scalable_targets(ServiceNamespace="sagemaker")
    assert (target["ScalableTargets"][0]["MinCapacity"], target["ScalableTargets"][0]["MaxCapacity"]) == (1, 3)

    # Once more changes nothing; with another value, that alone, and the parameters not named stay.
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
    assert there["alarms"] == ["ct-async-failures", "ct-async-memory", "ct-async-waiting", "ct-async-wake-up"]
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
    # And lose it where the instance is none any more.
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
    # These have no resources; the latter is bound to its namespaces by a condition.
    assert everywhere == {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
    assert statements["WriteMetrics"]["Condition"]


def test_results_are_stored_where_that_is_said(account):
    def environment():
        [model] = account.client("sagemaker").list_models()["Models"]
        container = account.client("sagemaker").describe_model(ModelName=model["ModelName"])["PrimaryContainer"]
        return container["Environment"]

    account.up("ct", **PARAMETERS)
    assert "StoreResults" not in policy(account) and "STORE" not in environment()
    account.up("ct", StoreResults="on-request")
    statement = policy(account)["StoreResults"]
    assert statement["Action"] == "medical-imaging:StoreDICOMStudy"
    assert statement["Resource"] == f"arn:aws:medical-imaging:us-east-1:123456789012:datastore/{DATASTORE}"
    assert "STORE" not in environment()
    account.up("ct", StoreResults="always")
    assert "StoreResults" in policy(account) and environment()["STORE"] == "input"


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
