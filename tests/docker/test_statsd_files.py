"""docs/statsd.md has the files of `docker/statsd`, and they and it the names that Paddler sends.

`tests/http/test_statsd.py` holds the names of docs/metrics.md to what goes over the wire."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import Any, cast

import yaml
from container_files import DOCKER, ROOT, Json

from workers.maintenance.main import command

DOCS = (ROOT / "docs/statsd.md").read_text()
SENT = dict(
    re.findall(r"^\| `(paddler\.\w+)` \| (gauge|timer) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
)
"""By name what StatsD calls it."""
EXPORTER_CALLS = {"gauge": "gauge", "timer": "observer"}
CLOUDWATCH_CALLS = {"gauge": "gauge", "timer": "timing"}
CLOUDWATCH_FIELDS = {
    *("service_address", "metrics_collection_interval", "metrics_aggregation_interval"),
    *("metric_separator", "allowed_pending_messages", "drop_original_metrics"),
}
"""What the schema of CloudWatch's agent allows in its section `statsd`; any other is refused."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def mapped(name: str, kind: str, mappings: list[Json]) -> str | None:
    """As the exporter does it: the first that matches; a `*` is a part of a name. None: dropped."""
    for one in mappings:
        if one.get("match_type") == "regex":
            if re.search(one["match"], name):
                return None if one.get("action") == "drop" else one["name"]
            continue
        if one.get("match_metric_type", kind) != kind or one["match"].count(".") != name.count("."):
            continue
        if fnmatchcase(name, one["match"]):
            part = re.fullmatch(re.escape(one["match"]).replace(r"\*", "([^.]*)"), name)
            assert part is not None
            return re.sub(r"\$\{?1\}?", part[1], one["name"])
    return name


def mapping() -> Json:
    return cast(Json, yaml.safe_load((DOCKER / "statsd/mapping.yaml").read_text()))


def test_the_page_shows_the_files() -> None:
    assert (DOCKER / "statsd/mapping.yaml").read_text() in blocks("yaml")
    assert (DOCKER / "statsd/cloudwatch-agent.json").read_text() in blocks("json")
    for text in blocks("yaml"):
        yaml.safe_load(text)


def test_the_page_lists_what_is_sent() -> None:
    assert len(SENT) == 10
    beginning = DOCS.partition("## Prometheus")[0]
    rows = re.findall(r"`(paddler\.\w+)` \| (gauge|timer)", beginning)
    assert dict(rows) == SENT
    (prefix,) = [one.default for one in command.params if one.name == "statsd_prefix"]
    assert {name.partition(".")[0] for name in SENT} == {prefix}


def test_the_exporter_makes_of_each_name_what_the_page_asks_for() -> None:
    found = {mapped(name, EXPORTER_CALLS[kind], mapping()["mappings"]) for name, kind in SENT.items()}
    assert len(found) == len(SENT)
    assert None not in found
    asked = set(re.findall(r"paddler_statsd_\w+", DOCS))
    assert len(asked) >= 4
    known = found | {f"{name}_bucket" for name in found if name and name.endswith("_seconds")}
    assert asked <= known


def test_what_is_not_paddlers_is_dropped() -> None:
    assert mapped("other.gauge", "gauge", mapping()["mappings"]) is None


def test_cloudwatch_names_each_as_the_page_says() -> None:
    config: Json = json.loads((DOCKER / "statsd/cloudwatch-agent.json").read_text())
    section: dict[str, Any] = config["metrics"]["metrics_collected"]["statsd"]
    assert set(section) <= CLOUDWATCH_FIELDS
    assert section["service_address"] == ":8125"
    separator: str = section["metric_separator"]
    named = {name.replace(".", separator): CLOUDWATCH_CALLS[kind] for name, kind in SENT.items()}
    below = DOCS.partition("## The CloudWatch agent")[2]
    rows = re.findall(r"^\| (`paddler_.*) \| (gauge|timing)\b", below, re.MULTILINE)
    assert {name: kind for names, kind in rows for name in re.findall(r"`(\w+)`", names)} == named
    asked = re.findall(r'(?:--metric-name |"MetricName": ")(\w+)', below)
    assert len(asked) == 3
    assert set(asked) <= set(named)
    assert set(re.findall(r'(?:--namespace |"Namespace": ")(\w+)', below)) == {config["metrics"]["namespace"]}
    for text in blocks("json"):
        json.loads(text)
