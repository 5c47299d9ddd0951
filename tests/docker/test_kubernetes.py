"""The manifests as kubectl renders them: by the schemas of Kubernetes, and by what our own commands know."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate  # pyright: ignore[reportMissingTypeStubs]
import pytest
from container_files import DOCKER, Json, Run, container_run, documents, images, parsed, parsed_check, rendered
from jsonschema import Draft202012Validator

from api.management.fleet_objects import AutoscaleObject
from paddler.store.acl import Role, user_name
from paddler.store.keys import PoolKeys

VARIANTS = ("local", "keda-redis", "keda-prometheus", "keda-metrics-api", "shared")
SCALED = VARIANTS[1:]
OLDEST, NEWEST = "1.25", "1.37"
"""autoscaling/v2 and policy/v1 are there since 1.23 and 1.21; the label of namespaces' names since 1.22."""
MADE_BY_HAND = {
    "paddler-redis": {"balancer", "worker", "agent", "users.acl"},
    "paddler-keda": {"username", "password", "token"},
}
"""Secrets that docker/k8s/README.md has an operator make, with their keys."""
variants = pytest.mark.parametrize("variant", VARIANTS)
scaled = pytest.mark.parametrize("variant", SCALED)


def objects(variant: str, kind: str) -> list[Json]:
    return [one for one in rendered(variant) if one["kind"] == kind]


def one(variant: str, kind: str, name: str) -> Json:
    (found,) = (found for found in objects(variant, kind) if found["metadata"]["name"] == name)
    return found


def config(variant: str) -> dict[str, str]:
    return one(variant, "ConfigMap", "paddler")["data"]


def pods(variant: str) -> Iterator[tuple[str, Json]]:
    for kind in ("Deployment", "StatefulSet"):
        for found in objects(variant, kind):
            yield found["metadata"]["name"], found["spec"]["template"]["spec"]


def runs(variant: str) -> dict[str, tuple[Run, Json, Json]]:
    """By the name of the container: what runs, the container, its pod."""
    found: dict[str, tuple[Run, Json, Json]] = {}
    for _, pod in pods(variant):
        for container in pod["containers"]:
            ran = container_run(variant, container, config(variant))
            if ran is not None:
                found[container["name"]] = ran, container, pod
    return found


def keda(variant: str) -> Json:
    return one(variant, "ScaledObject", "paddler-agent")["spec"]


def operator_pod() -> Json:
    (pod,) = documents((DOCKER / "k8s/operator-pod.yaml").read_text())
    return pod


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@variants
def test_the_schemas_take_them(variant: str, version: str) -> None:
    known = [found for found in [*rendered(variant), operator_pod()] if not found["apiVersion"].startswith("keda.sh/")]
    assert len(known) > 15
    for found in known:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of importlib.resources, in the validator
            kubernetes_validate.validate(found, version, strict=True)  # pyright: ignore[reportUnknownMemberType]


@scaled
def test_the_schema_of_keda_takes_them(variant: str) -> None:
    schema = json.loads((Path(__file__).parent / "keda.schema.json").read_text())
    found = [found for found in rendered(variant) if found["apiVersion"].startswith("keda.sh/")]
    assert found
    for one in found:
        assert [error.message for error in Draft202012Validator(schema).iter_errors(one)] == []


@variants
def test_commands_flags_and_variables_are_real(variant: str) -> None:
    found = runs(variant)
    assert set(found) == {"balancer", "worker", "agent"}
    for ran, container, _ in found.values():
        parsed(ran)
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            if "exec" in container.get(probe, {}):
                parsed_check(container[probe]["exec"]["command"], ran)


@variants
def test_ports_are_those_that_the_balancer_listens_on(variant: str) -> None:
    ran, container, _ = runs(variant)["balancer"]
    values = parsed(ran)
    wanted = {"management": "management_addr", "inference": "inference_addr", "openai": "compat_openai_addr"}
    wanted["panel"] = "web_admin_panel_addr"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {name: values[flag].port for name, flag in wanted.items()}
    service = one(variant, "Service", "paddler-balancer")["spec"]["ports"]
    assert {port["targetPort"]: port["port"] for port in service} == ports
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert container[probe]["httpGet"]["port"] == "management"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    allowed = one(variant, "NetworkPolicy", "paddler-balancer")["spec"]["ingress"]
    anyone, operators, people = ({port["port"] for port in rule["ports"]} for rule in allowed)
    assert anyone == {ports["inference"], ports["openai"]}
    assert operators == {ports["management"]}
    assert people == {ports["panel"]}


@variants
def test_agents_reach_each_other_where_they_give_states(variant: str) -> None:
    ran, container, _ = runs(variant)["agent"]
    port = parsed(ran)["kv_addr"].port
    assert [named["containerPort"] for named in container["ports"]] == [port]
    policy = one(variant, "NetworkPolicy", "paddler-agent")["spec"]
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"port": port}]
    assert rule["from"] == [{"podSelector": policy["podSelector"]}]
    assert {"to": rule["from"], "ports": rule["ports"]} in policy["egress"]


def test_the_shared_store_forgets_and_is_for_agents_alone() -> None:
    url = urlsplit(parsed(runs("shared")["agent"][0])["kv_url"])
    (port,) = one("shared", "Service", str(url.hostname))["spec"]["ports"]
    assert port["port"] == url.port
    (container,) = one("shared", "Deployment", "paddler-kv")["spec"]["template"]["spec"]["containers"]
    assert {"--maxmemory", "allkeys-lru"} <= set(container["command"])
    (rule,) = one("shared", "NetworkPolicy", "paddler-kv")["spec"]["ingress"]
    agents = one("shared", "NetworkPolicy", "paddler-agent")["spec"]["podSelector"]
    assert (rule["from"], rule["ports"]) == ([{"podSelector": agents}], [{"port": url.port}])


@variants
def test_each_is_who_it_says_to_redis_and_has_the_password(variant: str) -> None:
    for name, (ran, container, pod) in runs(variant).items():
        assert ran.environment["PADDLER_REDIS_USERNAME"] == user_name(Role(name), "default")
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        (secret,) = (volume for volume in pod["volumes"] if "secret" in volume)
        (item,) = secret["secret"]["items"]
        assert ran.environment["PADDLER_REDIS_PASSWORD_FILE"] == f"{mounts[secret['name']]}/{item['path']}"
        assert item["key"] == name


@variants
def test_what_they_name_is_there(variant: str) -> None:
    for where, pod in pods(variant):
        for volume in pod["volumes"]:
            if "secret" in volume:
                keys = {item["key"] for item in volume["secret"]["items"]}
                assert keys <= MADE_BY_HAND[volume["secret"]["secretName"]], where
            elif "persistentVolumeClaim" in volume:
                one(variant, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
            elif "configMap" in volume:
                one(variant, "ConfigMap", volume["configMap"]["name"])
        if account := pod.get("serviceAccountName"):
            one(variant, "ServiceAccount", account)
    for scaler in objects(variant, "HorizontalPodAutoscaler"):
        one(variant, scaler["spec"]["scaleTargetRef"]["kind"], scaler["spec"]["scaleTargetRef"]["name"])
    labels = [
        {**found["spec"]["template"]["metadata"]["labels"]}
        for kind in ("Deployment", "StatefulSet")
        for found in objects(variant, kind)
    ]
    selectors = [found["spec"]["selector"]["matchLabels"] for found in objects(variant, "PodDisruptionBudget")]
    selectors += [found["spec"]["selector"] for found in objects(variant, "Service")]
    selectors += [found["spec"]["podSelector"]["matchLabels"] for found in objects(variant, "NetworkPolicy")]
    for selector in selectors:
        assert sum(selector.items() <= pod.items() for pod in labels) == 1, selector


@variants
def test_the_secrets_are_told_of(variant: str) -> None:
    text = (DOCKER / "k8s/README.md").read_text()
    assert all(name in text for name in MADE_BY_HAND)
    assert f"kubectl apply -k docker/k8s/{variant}" in text


@variants
def test_pods_may_do_little(variant: str) -> None:
    for where, pod in [*pods(variant), ("operator", operator_pod()["spec"])]:
        assert pod["automountServiceAccountToken"] is False, where
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        for container in pod["containers"]:
            may = container["securityContext"]
            assert may["readOnlyRootFilesystem"], where
            assert not may["allowPrivilegeEscalation"], where
            assert may["capabilities"] == {"drop": ["ALL"]}, where
    user = images()["agent"].user.partition(":")[0]
    for ran, _, pod in runs(variant).values():
        assert str(pod["securityContext"]["runAsUser"]) == user, ran.where


@variants
def test_a_stop_leaves_time_to_drain(variant: str) -> None:
    ran, container, pod = runs(variant)["agent"]
    assert pod["terminationGracePeriodSeconds"] * 1000 >= parsed(ran)["grace_ms"] + 10_000
    assert "lifecycle" not in container, "SIGTERM is the drain, and a preStop's time is taken from the grace"
    _, container, pod = runs(variant)["balancer"]
    sleep, time_s = container["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    assert int(time_s) + 10 <= pod["terminationGracePeriodSeconds"]


@scaled
def test_the_scaler_has_the_fleet_to_itself(variant: str) -> None:
    spec = keda(variant)
    target = one(variant, "Deployment", spec["scaleTargetRef"]["name"])
    assert "replicas" not in target["spec"], "an apply would undo what the scaler has done"
    assert spec["minReplicaCount"] == 0
    for trigger in spec["triggers"]:
        if reference := trigger.get("authenticationRef"):
            asked = one(variant, "TriggerAuthentication", reference["name"])["spec"]["secretTargetRef"]
            assert all(part["key"] in MADE_BY_HAND[part["name"]] for part in asked)


@scaled
def test_its_target_is_the_slots_of_an_agent(variant: str) -> None:
    slots = str(parsed(runs(variant)["agent"][0])["slots"])
    for trigger in keda(variant)["triggers"]:
        said: dict[str, Any] = trigger["metadata"]
        assert {said.get(name, slots) for name in ("streamLength", "threshold", "targetValue")} == {slots}


@scaled
def test_waiting_outlasts_a_start(variant: str) -> None:
    """A request that comes to no agent has to wait for the poll and for the model, and one that comes after the last
    agent has gone must not come at once."""
    waits_s = parsed(runs(variant)["balancer"][0])["buffered_request_timeout"] / 1000
    assert waits_s >= 10 * keda(variant)["pollingInterval"]
    assert keda(variant)["cooldownPeriod"] >= waits_s


def test_the_streams_are_the_ledgers() -> None:
    text = (DOCKER / "k8s/keda-redis/scaler.yaml").read_text()
    keys = PoolKeys("paddler", "default")
    assert re.findall(r'stream: "(.+)"', text) == [keys.demand(), keys.demand_batch()]
    assert "consumerGroup:" not in text
    (trigger,) = keda("keda-redis")["triggers"]
    assert trigger["metadata"]["stream"] == keys.demand()


def test_the_metrics_api_is_ours() -> None:
    (trigger,) = keda("keda-metrics-api")["triggers"]
    url = urlsplit(trigger["metadata"]["url"])
    assert url.path == "/api/v1/pools/default/autoscale"
    service = one("keda-metrics-api", "Service", "paddler-balancer")
    assert url.hostname == f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert url.port == parsed(runs("keda-metrics-api")["balancer"][0])["management_addr"].port
    assert trigger["metadata"]["valueLocation"] in AutoscaleObject.__struct_fields__
