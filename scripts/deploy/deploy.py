#!/usr/bin/env python3
"""Creates, changes, shows and removes an endpoint of endpoint.yaml.

    deploy.py up NAME [KEY=VALUE...]    create it, or change it to these parameters
    deploy.py show NAME                 state, parameters and outputs as JSON
    deploy.py down NAME                 remove it and everything that `up` created

The parameters are those of endpoint.yaml. `up` keeps the values of parameters that are not given, and does nothing
if nothing changes. Region, credentials and service addresses are boto3's own, such as AWS_REGION, AWS_PROFILE and
AWS_ENDPOINT_URL. Buckets, their contents and images are not touched, with one exception: with NewImageSets=true,
`up` puts new_image_sets.yaml and the function's zip file into ModelBucket, below ahi-inference/, where they stay.
"""

import argparse
import hashlib
import io
import json
import re
import sys
import time
import zipfile
from pathlib import Path

import boto3
from botocore.exceptions import ClientError, WaiterError

TEMPLATE = Path(__file__).with_name("endpoint.yaml")
NESTED = Path(__file__).with_name("new_image_sets.yaml")
FUNCTION = Path(__file__).with_name("new_image_sets.py")
# An endpoint starts within 10 minutes; SageMaker gives up after 30.
WAITING = {"Delay": 15, "MaxAttempts": 200}
# Remains of a stack that was never complete: it can only be removed.
BROKEN = {"ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED", "DELETE_FAILED"}
GPU_INSTANCE = re.compile(r"ml\.[gp]\d")
# Its NVIDIA driver, 580, is the first for CUDA 13, which the image's ONNX Runtime is built for.
GPU_AMI = "al2023-ami-sagemaker-inference-gpu-4-1"


def say(*words):
    print(*words, file=sys.stderr)


def describe(client, name):
    """The stack, or None if there is none."""
    try:
        return client.describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def parameters_of(words):
    """KEY=VALUE words as a dictionary."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise SystemExit(f"{word}: parameters are written KEY=VALUE")
        found[key] = value
    return found


def complete(given, previous):
    """The given parameters, and those that follow from them; warns about combinations that cannot be right."""
    wanted = dict(given)
    effective = previous | wanted
    if GPU_INSTANCE.match(effective.get("InstanceType", "")):
        if not effective.get("InferenceAmiVersion"):
            wanted["InferenceAmiVersion"] = GPU_AMI
            say(f"InferenceAmiVersion={GPU_AMI}, for its NVIDIA driver")
        if effective.get("Models") == "multi":
            say("warning: AWS documents multi-model endpoints on GPU instances for its Triton container only; "
                "Models=single with several bundles in one package works without doubt")
    elif "InstanceType" in given and effective.get("InferenceAmiVersion") == GPU_AMI:
        # Back from a GPU instance: what was added for it goes, too.
        wanted.setdefault("InferenceAmiVersion", "")
    return wanted


def zipped(file):
    """A zip file that is the same, byte for byte, wherever and whenever it is created."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo(file.name)
        # Unix permissions, readable for the user that Lambda runs the function as.
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        archive.writestr(entry, file.read_bytes())
    return content.getvalue()


def publish(bucket):
    """Puts the nested template and its function into a bucket, and returns the prefix of their keys.

    The prefix depends on their contents: a stack changes if, and only if, they have changed.
    """
    objects = {NESTED.name: NESTED.read_bytes(), FUNCTION.with_suffix(".zip").name: zipped(FUNCTION)}
    prefix = f"ahi-inference/{hashlib.sha256(b''.join(objects.values())).hexdigest()[:16]}/"
    client = boto3.client("s3")
    for name, content in objects.items():
        client.put_object(Bucket=bucket, Key=prefix + name, Body=content)
    return prefix


def check_request_fields(text):
    """Exits if a request could not have these fields: the function would notice only after the deployment."""
    try:
        fields = json.loads(text or "{}")
    except ValueError as error:
        raise SystemExit(f"RequestFields is no JSON: {error}") from None
    if not isinstance(fields, dict) or "inputs" in fields:
        raise SystemExit("RequestFields is a JSON object with what requests have beside inputs")


def wait(client, waiter, name):
    """Waits for the stack; if it fails, says why, resource by resource."""
    try:
        client.get_waiter(waiter).wait(StackName=name, WaiterConfig=WAITING)
    except WaiterError as error:
        for event in client.describe_stack_events(StackName=name)["StackEvents"]:
            if event["ResourceStatus"].endswith("_FAILED"):
                say(f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', 'failed')}")
        raise SystemExit(f"{name}: {error}") from None


def settle(client, name):
    """The stack once nothing is in progress, or None; the remains of a failure are removed."""
    for _ in range(WAITING["MaxAttempts"]):
        stack = describe(client, name)
        if stack is None or not stack["StackStatus"].endswith("_IN_PROGRESS"):
            break
        say(f"{name} is {stack['StackStatus']}; waiting")
        time.sleep(WAITING["Delay"])
    if stack is not None and stack["StackStatus"] in BROKEN:
        say(f"{name} is {stack['StackStatus']}; removing it first")
        remove(client, name)
        return None
    return stack


def remove(client, name):
    client.delete_stack(StackName=name)
    wait(client, "stack_delete_complete", name)


def up(client, name, words):
    stack = settle(client, name)
    previous = {p["ParameterKey"]: p["ParameterValue"] for p in stack["Parameters"]} if stack else {}
    template = TEMPLATE.read_text()
    summary = client.get_template_summary(TemplateBody=template)
    known = {p["ParameterKey"]: p.get("DefaultValue") for p in summary["Parameters"]}
    given = parameters_of(words)
    if unknown := given.keys() - known.keys():
        raise SystemExit(f"no parameter is called {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    wanted = complete(given, previous)
    defaults = {key: value for key, value in known.items() if value is not None and key not in previous}
    values = defaults | wanted
    if missing := known.keys() - values.keys() - previous.keys():
        raise SystemExit(f"{name} needs {', '.join(sorted(missing))}")
    effective = previous | values
    if effective["NewImageSets"] == "true":
        if effective["Mode"] != "asynchronous":
            raise SystemExit("NewImageSets=true needs Mode=asynchronous")
        check_request_fields(effective["RequestFields"])
        values["DeployPrefix"] = publish(effective["ModelBucket"])
    parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()]
    parameters += [
        {"ParameterKey": key, "UsePreviousValue": True} for key in previous if key in known and key not in values
    ]
    request = {
        "StackName": name,
        "TemplateBody": template,
        "Parameters": parameters,
        "Capabilities": ["CAPABILITY_IAM"],
        "Tags": [{"Key": "application", "Value": "ahi-inference"}],
    }
    if stack is None:
        say(f"making {name}")
        client.create_stack(**request)
        wait(client, "stack_create_complete", name)
    else:
        try:
            client.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise
            say(f"{name} is as wanted")
        else:
            say(f"changing {name}")
            wait(client, "stack_update_complete", name)
    show(client, name)


def show(client, name):
    stack = describe(client, name)
    if stack is None:
        raise SystemExit(f"there is no stack {name}")
    print(json.dumps({
        "status": stack["StackStatus"],
        "parameters": {p["ParameterKey"]: p["ParameterValue"] for p in stack.get("Parameters", [])},
        "outputs": {o["OutputKey"]: o["OutputValue"] for o in stack.get("Outputs", [])},
    }, indent=2))


def down(client, name):
    if describe(client, name) is None:
        say(f"there is no stack {name}")
        return
    say(f"removing {name}")
    remove(client, name)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("action", choices=["up", "show", "down"])
    arguments.add_argument("name", metavar="NAME", help="of the stack and the endpoint")
    arguments.add_argument("parameters", metavar="KEY=VALUE", nargs="*", help="for up: parameters of endpoint.yaml")
    args = arguments.parse_args()
    client = boto3.client("cloudformation")
    try:
        if args.action == "up":
            up(client, args.name, args.parameters)
        elif args.parameters:
            arguments.error(f"{args.action} takes no parameters")
        else:
            {"show": show, "down": down}[args.action](client, args.name)
    except ClientError as error:
        raise SystemExit(f"{args.name}: {error}") from None


if __name__ == "__main__":
    main()
