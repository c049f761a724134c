"""HTTP requests signed as the AWS SDKs sign them, for a service that no SDK covers: DICOMweb of HealthImaging."""

import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


class Signature(requests.auth.AuthBase):
    """Signature Version 4 with the service name of HealthImaging."""

    def __call__(self, request):
        signed = AWSRequest(method=request.method, url=request.url, data=request.body)
        SigV4Auth(Credentials("test", "test"), "medical-imaging", "us-east-1").add_auth(signed)
        request.headers.update(dict(signed.headers))
        return request


def session():
    made = requests.Session()
    made.auth = Signature()
    return made
