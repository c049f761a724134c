"""The alarms: their metrics are based on what the server actually logs and counts.

A server is put into the situations that the alarms report, and into ordinary ones. The deployment's patterns are
evaluated on the lines of its log, and /metrics is processed as the CloudWatch agent is told to.
"""

import json
import re
import threading
import time

import pytest
from cfnlint.decode.cfn_yaml import load

import pages
import tiny
from cloudwatch_agent import Agent
from faults import Broken
from faulty import Fault
from filter_patterns import Pattern, parsed, select
from local import ROOT, Program, multi_model
from traffic import ask

ENDPOINT = load(str(ROOT / "scripts/deploy/endpoint.yaml"))
ELSEWHERE = load(str(ROOT / "docker/cloudwatch-alarms.yaml"))
AGENT = Agent(ROOT / "docker/cloudwatch-agent.json", ROOT / "docker/cloudwatch-prometheus.yaml")

BY_VARIANT, BY_ENDPOINT = {"EndpointName", "VariantName"}, {"EndpointName"}
# Metrics that AWS documents, with their dimensions: "Metrics for monitoring Amazon SageMaker AI with Amazon
# CloudWatch" and "Alarms and logs for tracking metrics from asynchronous endpoints".
OF_SAGEMAKER = {
    ("AWS/SageMaker", "Invocation4XXErrors"): BY_VARIANT,
    ("AWS/SageMaker", "Invocation5XXErrors"): BY_VARIANT,
    ("AWS/SageMaker", "ModelLatency"): BY_VARIANT,
    ("AWS/SageMaker", "ApproximateAgeOfOldestRequest"): BY_ENDPOINT,
    ("AWS/SageMaker", "ApproximateBacklogSize"): BY_ENDPOINT,
    ("AWS/SageMaker", "ApproximateBacklogSizePerInstance"): BY_ENDPOINT,
    ("AWS/SageMaker", "HasBacklogWithoutCapacity"): BY_ENDPOINT,
    ("/aws/sagemaker/Endpoints", "CPUUtilization"): BY_VARIANT,
    ("/aws/sagemaker/Endpoints", "DiskUtilization"): BY_VARIANT,
    ("/aws/sagemaker/Endpoints", "MemoryUtilization"): BY_VARIANT,
}
# How each situation shows: the metrics that it adds to.
FAILED_CALL = {"DependencyFailures", "Inputs", "FailedInputs"}
SHOWN = {
    "ordinary": {"Inputs"},
    "busy": {"Refused", "QueueSeconds", "Inputs"},
    "upstream": FAILED_CALL,
    "credentials": FAILED_CALL,
    "throttled": FAILED_CALL,
    "absent": {"Inputs", "FailedInputs"},
    "one of two": {"Inputs", "FailedInputs"},
    "stopped": set(),
    "unloadable": {"ModelFailures"},
    "one model of two": {"ModelFailures"},
    "failing network": {"ModelFailures", "Inputs", "FailedInputs"},
}


def resources(template, kind):
    of_kind = {name: one for name, one in template["Resources"].items() if one["Type"] == kind}
    assert of_kind, kind
    return {name: one["Properties"] for name, one in of_kind.items()}


ALARMS = resources(ENDPOINT, "AWS::CloudWatch::Alarm")
OTHER_ALARMS = resources(ELSEWHERE, "AWS::CloudWatch::Alarm")
FILTERS = {}
for _properties in resources(ENDPOINT, "AWS::Logs::MetricFilter").values():
    [_made] = _properties["MetricTransformations"]
    FILTERS[_made["MetricName"]] = (Pattern(_properties["FilterPattern"]), _made, _properties)


def metrics_of(alarm):
    """Namespace, name and dimensions of each metric of an alarm."""
    if "Metrics" not in alarm:
        single = [alarm]
    else:
        single = [query["MetricStat"]["Metric"] for query in alarm["Metrics"] if "MetricStat" in query]
    for metric in single:
        yield metric["Namespace"], metric["MetricName"], {d["Name"]: d["Value"] for d in metric.get("Dimensions", [])}


class Watched:
    """A server, the requests it got, and what it logged in each situation."""

    def __init__(self, server, said):
        self.server, self.said, self.taken, self.answers, self.asked, self.failed = server, said, 0, [], [], 0

    def ask(self, body, path="/invocations", method="POST"):
        answer = ask(self.server.address, method, path, body)
        self.answers.append(answer)
        if answer.status >= 500 and path.endswith(("/invocations", "/invoke")):
            self.failed += 1
        # Probes are not logged.
        if path not in ("/ping", "/metrics"):
            self.asked.append(answer.headers["x-request-id"])
        return answer

    def end(self, situation, until='"answered"'):
        """Assigns new log lines to the situation once each request has its last line and one contains `until`."""
        for _ in range(600):
            lines = list(self.server.log[self.taken:])
            ended = [line for line in lines if '"answered"' in line]
            if all(any(one in line for line in ended) for one in self.asked) and any(until in line for line in lines):
                self.taken, self.asked = self.taken + len(lines), []
                self.said[situation] = [parsed(line) for line in lines]
                return
            time.sleep(0.05)
        raise AssertionError(f"{situation}: no {until} or no line of one of {self.asked} in {lines}")

    def wait(self, name, value):
        """Waits until the metric has this value; returns the text of /metrics."""
        for _ in range(600):
            text = self.metrics()
            if f"\nahi_inference_{name} {value}\n" in text:
                return text
            time.sleep(0.05)
        raise AssertionError(f"{name} did not become {value}")

    def metrics(self):
        return ask(self.server.address, "GET", "/metrics").body.decode()


def keep_busy(watched, broken):
    """One request runs, one waits, one is refused; returns /metrics at that point."""
    broken.ahi.faults = [Fault("slow", 1, "getImageSetMetadata", 4)]
    clients = []
    for state in ("running", "waiting"):
        clients.append(threading.Thread(target=watched.ask, args=[broken.requests["ahi"]]))
        clients[-1].start()
        measured = watched.wait(f"requests_{state}", 1)
    refused = watched.ask(broken.requests["ahi"])
    broken.ahi.faults = []
    assert (refused.status, refused.code) == (503, "overloaded")
    for client in clients:
        client.join()
    assert [answer.status for answer in watched.answers[-2:]] == [200, 200]
    watched.end("busy")
    return measured


def break_network(watched, request, folder):
    """Loads networks that fail at random until one loads, then lets it fail for good: its file is gone by then."""
    for seed in range(1, 50):
        model = tiny.shaky_bundle(folder / str(seed), 5, seed)
        loaded = watched.ask({"model_name": str(seed), "url": str(model)}, "/models")
        if loaded.status != 200:
            continue
        (model / "models/model.onnx").unlink()
        for _ in range(50):
            watched.ask(request, f"/models/{seed}/invoke")
            if ask(watched.server.address, "GET", "/ping").status == 503:
                return
    raise AssertionError("no network failed for good")


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Log lines by situation, and /metrics at several times, with the number of 5xx answers to requests so far."""
    folder = tmp_path_factory.mktemp("alarms")
    said, measured = {}, []
    busy = {"MAX_CONCURRENT_REQUESTS": "1", "QUEUE_LENGTH": "1", "EXECUTION_PROVIDERS": "cpu"}
    with Broken(folder, tiny.bundle(folder / "tiny", 20), 32, 12, **busy) as broken:
        watched, good = Watched(broken.server, said), broken.requests["ahi"]
        for body, path, method, status in [
            (good, "/invocations", "POST", 200), ({}, "/invocations", "POST", 400), ({}, "/no", "POST", 404),
            (None, "/invocations", "GET", 405), (None, "/info", "GET", 200), (None, "/ping", "GET", 200),
            (None, "/metrics", "GET", 200), (None, "/execution-parameters", "GET", 200),
        ]:
            assert watched.ask(body, path, method).status == status, path
        watched.end("ordinary")
        measured.append((keep_busy(watched, broken), 0))
        for situation, fault in [("upstream", "5xx"), ("credentials", "expired"), ("throttled", "throttle")]:
            broken.ahi.faults = [Fault(fault, 1, "getImageSetMetadata")]
            answer = watched.ask(good)
            broken.ahi.faults = []
            assert answer.code == situation, answer.body
            watched.end(situation)
        absent = broken.image_set | {"imageSetId": "0" * 32}
        assert watched.ask(absent).status == 404
        watched.end("absent")
        assert watched.ask({"inputs": [broken.image_set, absent]}).status == 200
        watched.end("one of two")
        measured.append((watched.metrics(), watched.failed))
        broken.server.process.terminate()
        watched.end("stopped", '"stopped"')
        with multi_model(broken.ahi.address, EXECUTION_PROVIDERS="cpu") as server:
            watched = Watched(server, said)
            rubbish = tiny.bundle(folder / "rubbish", 5)
            (rubbish / "models/model.onnx").write_bytes(b"no network")
            assert watched.ask({"model_name": "rubbish", "url": str(rubbish)}, "/models").status == 422
            watched.end("unloadable")
            measured.append((watched.metrics(), 0))
            break_network(watched, good, folder)
            watched.end("failing network", "a network is still broken")
            # Probes fail as well, but do not count as requests.
            assert ask(server.address, "GET", "/ping").status == 503
            measured.append((watched.metrics(), watched.failed))
        rubbish.rename(tiny.bundle(folder / "two/good", 20).parent / "rubbish")
        with Program("serve", "--model", folder / "two", "--port", 0, EXECUTION_PROVIDERS="cpu") as server:
            watched = Watched(server, said)
            watched.end("one model of two", '"model cannot be served"')
            measured.append((watched.wait('models{state="failed"}', 1), 0))
    assert set(said) == set(SHOWN)
    return said, measured


@pytest.mark.parametrize("situation", SHOWN)
def test_a_situation_shows_by_its_metrics(seen, situation):
    lines = seen[0][situation]
    counts = {name: len(pattern.matching(lines)) for name, (pattern, _, _) in FILTERS.items()}
    print(f"{situation}, {len(lines)} lines: {counts}")
    assert lines and {name for name, count in counts.items() if count} == SHOWN[situation]


def test_each_input_counts_once(seen):
    count = lambda situation, name: len(FILTERS[name][0].matching(seen[0][situation]))
    assert [count("ordinary", "Inputs"), count("busy", "Inputs")] == [1, 2]
    assert [count("one of two", name) for name in ("Inputs", "FailedInputs")] == [2, 1]
    assert [count("busy", name) for name in ("Refused", "QueueSeconds")] == [1, 1]
    assert [count(situation, "DependencyFailures") for situation in ("upstream", "credentials", "throttled")] == [1, 1, 1]


@pytest.mark.parametrize("name", FILTERS)
def test_every_part_of_a_pattern_is_of_a_line_that_there_is(seen, name):
    pattern, made, properties = FILTERS[name]
    lines = [line for of in seen[0].values() for line in of]
    matching = pattern.matching(lines)
    assert matching
    for comparison in pattern.comparisons():
        assert any(comparison(line) for line in matching), f"{comparison} is true of no line"
        assert any(line and not comparison(line) for line in lines), f"{comparison} is true of every line"
        assert all(select(line, comparison.selector) is not None for line in matching), comparison
    value = made["MetricValue"]
    if value != "1":
        # Percentiles and means need non-negative numbers.
        assert all(select(line, value) >= 0 for line in matching), value
    assert properties["LogGroupName"] == {"Ref": "LogGroup"}


def test_the_server_s_lines_come_to_the_filters():
    [group] = resources(ENDPOINT, "AWS::Logs::LogGroup").values()
    assert group["LogGroupName"] == {"Fn::Sub": "/aws/sagemaker/Endpoints/${AWS::StackName}"}
    [model] = resources(ENDPOINT, "AWS::SageMaker::Model").values()
    # Without these settings, the log is JSON from level info on.
    assert not {"LOG_LEVEL", "LOG_FORMAT"} & set(model["PrimaryContainer"]["Environment"])


def test_alarms_of_an_endpoint_are_on_metrics_that_there_are():
    used = set()
    for name, alarm in ALARMS.items():
        for namespace, metric, dimensions in metrics_of(alarm):
            if isinstance(namespace, str):
                assert set(dimensions) == OF_SAGEMAKER[namespace, metric], name
                assert dimensions["EndpointName"] == {"Fn::GetAtt": ["Endpoint", "EndpointName"]}
                continue
            _, made, properties = FILTERS[metric]
            # A filter's metric has the dimensions that the filter names.
            assert (namespace, dimensions) == (made["MetricNamespace"], {}) and "Dimensions" not in made, name
            conditions = [
                one.get("Condition") for one in ENDPOINT["Resources"].values()
                if one["Properties"] is properties or one["Properties"] is alarm
            ]
            assert len(set(conditions)) == 1, f"{name} is there without its filter, or the other way round"
            used.add(metric)
    assert used == set(FILTERS), "a metric that no alarm is on"


def test_expressions_are_of_metrics_of_their_alarm():
    computed = [alarm for alarm in ALARMS.values() if "Metrics" in alarm]
    assert computed
    for alarm in computed:
        ids = {query["Id"] for query in alarm["Metrics"] if "MetricStat" in query}
        [expression] = [query["Expression"] for query in alarm["Metrics"] if "Expression" in query]
        assert set(re.findall(r"\b[a-z]\w*", expression)) == ids
        assert all(("Expression" in query) != (query.get("ReturnData") is False) for query in alarm["Metrics"])


def test_alarms_elsewhere_are_on_metrics_that_the_agent_makes(seen):
    times = [AGENT.metrics(text) for text, _ in seen[1]]
    used = set()
    for name, alarm in OTHER_ALARMS.items():
        for namespace, metric, dimensions in metrics_of(alarm):
            key = (namespace, metric, frozenset(dimensions.items()))
            values = [made.get(key, 0) for made in times]
            print(f"{name}: {metric} {dimensions} {values}")
            # A metric that is missing is 0 at all times, like one that is not counted.
            assert min(values) == 0 < max(values), f"{name}: {key} is not among {list(times[-1])}"
            used.add(metric)
    # Nothing is scraped and paid for without an alarm on it.
    assert used == {name for text, _ in seen[1] for name, _, _ in AGENT.samples(text)} == set(AGENT.units)


def test_the_agent_counts_failed_requests_and_no_failed_probes(seen):
    dimensions = frozenset({("job", "ahi-inference"), ("answers", "5xx")})
    counts = [
        (AGENT.metrics(text).get(("ahi-inference", "ahi_inference_requests_total", dimensions), 0), failed)
        for text, failed in seen[1]
    ]
    assert all(counted == failed for counted, failed in counts) and sum(failed > 0 for _, failed in counts) == 2
    assert any(re.search(r'_requests_total\{route="/ping",method="GET",status="503"\} [1-9]', text) for text, _ in seen[1])


def test_the_agent_finds_what_it_scrapes():
    assert AGENT.path.rpartition("/")[2] == "cloudwatch-prometheus.yaml"
    assert AGENT.target.endswith(":8080")


def test_alarms_are_as_they_are_documented():
    rows = pages.pages()["docs/operations.md"].rows("Alarm", "Metric", "Condition", "Action")
    documented = sorted((row[0].split("`")[1], *sorted(row[1].split("`")[1::2])) for row in rows)
    there = sorted(
        (alarm["AlarmName"]["Fn::Sub"].replace("${AWS::StackName}", "NAME"),
         *sorted({metric for _, metric, _ in metrics_of(alarm)}))
        for alarm in (*ALARMS.values(), *OTHER_ALARMS.values())
    )
    assert documented == there
    for alarm in (*ALARMS.values(), *OTHER_ALARMS.values()):
        assert 20 < len(alarm["AlarmDescription"]) < 1024 and alarm["AlarmActions"]


@pytest.mark.parametrize("text", [
    '$.a = "b"', '{ $.a = "b" ', '{ $.a = "b" } x', '{ $.a == "b" }', '{ $.a = b }', '{ $.a = "b*" }', '{ $.a > "b" }',
    '{ $.a[0] = 1 }', "{ $.a IS NULL }", '{ $.a = %b% }', '{ a = "b" }', '{ $.a = "b" & $.c = 1 }', "{}", "{ ($.a = 1 }",
])
def test_patterns_that_are_not_known_are_refused(text):
    with pytest.raises(ValueError):
        Pattern(text)


def test_patterns_are_understood():
    line = {"user": {"id": 7, "name": "x"}, "status": 503, "on": True, "none": None}
    for text, expected in [
        ('{ $.user.name = "x" && $.status >= 500 }', True), ('{ $.status = "503" }', False), ("{ $.on = 1 }", False),
        ('{ $.user.name = "y" || $.user.id = 7 && $.status = 503 }', True),
        ('{ ($.user.id = 7 || $.user.name = "y") && $.status < 500 }', False),
        ('{ $.gone != "x" }', False), ('{ $.none != "x" }', False), ('{ $.user.name != "y" }', True), ("{ $.user = 7 }", False),
    ]:
        assert bool(Pattern(text).matching([line])) == expected, text
    assert parsed("2026 no JSON") is None and Pattern("{ $.a != 1 }").matching([None]) == []
