"""What moto's CloudFormation lacks, for the deployment tests: scaling, alarms, log filters, queue policies,
outputs of a nested stack, AWS::NoValue as an item of a list, and the name of an endpoint.

moto has the services' APIs but skips these resource types in a stack. Each class here creates its resource by
calling the moto server with boto3, so that botocore checks the template's properties against the API's shapes, and
removes it the same way.
"""

import json

import boto3
from moto.cloudformation import parsing
from moto.cloudformation.models import Stack
from moto.core.common_models import CloudFormationModel
from moto.sagemaker.models import FakeEndpoint

# Where the moto server listens; set before a stack is created.
ENDPOINT = {"url": None}

# moto groups its models by the second part of their module's name.
MODULE = "moto.cloudformation"

clean_value = parsing.clean_json


def clean_json(value, resources):
    """Like moto's, which calls this one for nested values. Items that are AWS::NoValue are dropped, and an
    attribute's name may contain a dot."""
    if isinstance(value, dict) and "Fn::GetAtt" in value:
        resource, *attribute = value["Fn::GetAtt"]
        value = {"Fn::GetAtt": [resource, ".".join(attribute)]}
    cleaned = clean_value(value, resources)
    return [item for item in cleaned if item is not None] if isinstance(value, list) else cleaned


parsing.clean_json = clean_json
# A nested stack has its outputs.
Stack.get_cfn_attribute = lambda stack, name: stack.output_map[name.removeprefix("Outputs.")].value
# An endpoint gets the name that the template gives it.
FakeEndpoint.cloudformation_name_type = staticmethod(lambda: "EndpointName")


def client(service, region):
    return boto3.client(
        service, region_name=region, endpoint_url=ENDPOINT["url"],
        aws_access_key_id="test", aws_secret_access_key="test",
    )


def typed(value, shape):
    """A template's values in the API's types: in a stack, a numeric parameter is text."""
    if shape.type_name == "structure":
        return {key: typed(item, shape.members[key]) for key, item in value.items()}
    if shape.type_name == "list":
        return [typed(item, shape.member) for item in value]
    return {"integer": int, "double": float, "boolean": bool}.get(shape.type_name, str)(value)


def call(service, region, method, properties):
    api = client(service, region)
    operation = api.meta.method_to_api_mapping[method]
    # A property that the API lacks raises a KeyError here, which fails the stack.
    getattr(api, method)(**typed(properties, api.meta.service_model.operation_model(operation).input_shape))


class Absent:
    """Stands for a resource that is not in the stack."""

    physical_resource_id = None

    def delete(self, *_):
        pass


class Extension:
    """A resource that is created by API calls."""

    def __init__(self, name, properties, region):
        self.name, self.properties, self.region = name, properties, region

    @property
    def physical_resource_id(self):
        return self.name

    @classmethod
    def cloudformation_type(cls):
        return cls.type_name

    @staticmethod
    def cloudformation_name_type():
        return ""

    @classmethod
    def has_cfn_attr(cls, attr):
        return False

    @classmethod
    def create_from_cloudformation_json(cls, resource_name, cloudformation_json, account_id, region_name, **_):
        made = cls(resource_name, cloudformation_json["Properties"], region_name)
        made.put()
        return made

    @classmethod
    def update_from_cloudformation_json(
        cls, original_resource, new_resource_name, cloudformation_json, account_id, region_name
    ):
        if original_resource is None:
            # moto also updates resources that their condition has left out of the stack.
            return Absent()
        original_resource.properties = cloudformation_json["Properties"]
        original_resource.put()
        return original_resource


class ScalableTarget(Extension, CloudFormationModel):
    __module__ = MODULE
    type_name = "AWS::ApplicationAutoScaling::ScalableTarget"
    KEYS = ("ServiceNamespace", "ResourceId", "ScalableDimension")

    def put(self):
        call("application-autoscaling", self.region, "register_scalable_target", self.properties)
        # As in CloudFormation: the value of Ref.
        resource, dimension, namespace = (self.properties[k] for k in ("ResourceId", "ScalableDimension", "ServiceNamespace"))
        self.name = f"{resource}|{dimension}|{namespace}"

    def delete(self, *_):
        keys = {key: self.properties[key] for key in self.KEYS}
        call("application-autoscaling", self.region, "deregister_scalable_target", keys)


class ScalingPolicy(Extension, CloudFormationModel):
    __module__ = MODULE
    type_name = "AWS::ApplicationAutoScaling::ScalingPolicy"

    def put(self):
        properties = dict(self.properties)
        resource, dimension, namespace = properties.pop("ScalingTargetId").split("|")
        self.keys = {"ServiceNamespace": namespace, "ResourceId": resource, "ScalableDimension": dimension}
        call("application-autoscaling", self.region, "put_scaling_policy", properties | self.keys)
        self.name = f"arn:aws:autoscaling:{self.region}:123456789012:scalingPolicy:id:{properties['PolicyName']}"

    def delete(self, *_):
        keys = self.keys | {"PolicyName": self.properties["PolicyName"]}
        call("application-autoscaling", self.region, "delete_scaling_policy", keys)


class Alarm(Extension, CloudFormationModel):
    __module__ = MODULE
    type_name = "AWS::CloudWatch::Alarm"

    def put(self):
        call("cloudwatch", self.region, "put_metric_alarm", self.properties)
        self.name = self.properties["AlarmName"]

    def delete(self, *_):
        call("cloudwatch", self.region, "delete_alarms", {"AlarmNames": [self.name]})


def api_names(value):
    """Properties under the names of an API, which begin with lower-case letters."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: api_names(item) for key, item in value.items()}
    return [api_names(item) for item in value] if isinstance(value, list) else value


class MetricFilter(Extension, CloudFormationModel):
    __module__ = MODULE
    type_name = "AWS::Logs::MetricFilter"

    def put(self):
        self.keys = {"filterName": self.name, "logGroupName": self.properties["LogGroupName"]}
        # moto would keep two copies of a filter that is put again.
        self.delete()
        call("logs", self.region, "put_metric_filter", api_names(self.properties) | self.keys)

    def delete(self, *_):
        call("logs", self.region, "delete_metric_filter", self.keys)


class QueuePolicy(Extension, CloudFormationModel):
    __module__ = MODULE
    type_name = "AWS::SQS::QueuePolicy"

    def put(self):
        for queue in self.properties["Queues"]:
            policy = {"Policy": json.dumps(self.properties["PolicyDocument"])}
            client("sqs", self.region).set_queue_attributes(QueueUrl=queue, Attributes=policy)
        self.name = "policy"

    def delete(self, *_):
        # It is removed with the queues.
        pass
