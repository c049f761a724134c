"""What the CloudWatch agent makes of /metrics with its two configuration files; features they do not use fail.

According to its documentation and source, samples are relabelled as in Prometheus. Gauges and counters become
metrics (counters as differences; histograms and infos are dropped) if a declaration selects their name and its
matcher matches their labels. Each of the declaration's sets of labels that the sample has becomes a set of
dimensions.
"""

import json
import re

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

KINDS = ("gauge", "counter")


class Agent:
    def __init__(self, agent, scrape):
        collected = json.loads(agent.read_text())["logs"]["metrics_collected"]["prometheus"]
        known(collected, "log_group_name", "prometheus_config_path", "emf_processor")
        processor = collected["emf_processor"]
        known(processor, "metric_declaration_dedup", "metric_namespace", "metric_unit", "metric_declaration")
        self.path = collected["prometheus_config_path"]
        self.namespace = processor["metric_namespace"]
        self.units = processor["metric_unit"]
        self.declarations = processor["metric_declaration"]
        for declaration in self.declarations:
            known(declaration, "source_labels", "label_matcher", "dimensions", "metric_selectors")
        document = yaml.safe_load(scrape.read_text())
        known(document, "global", "scrape_configs")
        [self.job] = document["scrape_configs"]
        known(self.job, "job_name", "static_configs", "metric_relabel_configs")
        [targets] = self.job["static_configs"]
        [self.target] = targets["targets"]

    def samples(self, text):
        """Relabelled samples of the kinds that the agent takes: name, labels and value."""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                labels = {"job": self.job["job_name"], "instance": self.target} | sample.labels
                labels = relabelled(labels | {"__name__": sample.name}, self.job["metric_relabel_configs"])
                if labels is not None and family.type in KINDS:
                    yield labels.pop("__name__"), labels, sample.value

    def metrics(self, text):
        """The sum of each metric in CloudWatch, by namespace, name and dimensions."""
        sums = {}
        for name, labels, value in self.samples(text):
            sets = set()
            for declaration in self.declarations:
                joined = ";".join(labels.get(label, "") for label in declaration["source_labels"])
                selected = any(re.search(selector, name) for selector in declaration["metric_selectors"])
                if selected and re.search(declaration["label_matcher"], joined):
                    sets |= {tuple(one) for one in declaration["dimensions"] if set(one) <= set(labels)}
            for one in sets:
                key = (self.namespace, name, frozenset((label, labels[label]) for label in one))
                sums[key] = sums.get(key, 0) + value
        return sums


def known(settings, *names):
    unknown = set(settings) - set(names)
    assert not unknown, f"{unknown}: not known here"


def relabelled(labels, rules):
    """The labels after the rules; None if one of them drops the sample."""
    labels = dict(labels)
    for rule in rules:
        known(rule, "source_labels", "regex", "action", "target_label", "replacement")
        joined = ";".join(labels.get(label, "") for label in rule["source_labels"])
        matches = re.fullmatch(rule["regex"], joined)
        action = rule.get("action", "replace")
        assert action in ("keep", "replace"), action
        if action == "keep" and not matches:
            return None
        if action == "replace" and matches:
            assert "$" not in rule["replacement"], rule
            labels[rule["target_label"]] = rule["replacement"]
    return labels
