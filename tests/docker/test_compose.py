"""The compose files by Docker Compose itself, their commands, flags, variables and ports by our own commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import pytest
import yaml
from container_files import DOCKER, Json, compose, images, parsed, parsed_check, service_run

from paddler.store.acl import ROLES, Role, user_name

FILES = [(), ("compose.public.yaml",), ("compose.gpu.yaml",), ("compose.test.yaml",), ("compose.kv.yaml",)]
IDS = ["quick start", "public", "gpu", "test", "kv"]
OURS = {"balancer", "worker", "agent", "operator"}
files = pytest.mark.parametrize("files", FILES, ids=IDS)


def services(files: tuple[str, ...]) -> dict[str, Json]:
    return compose(*files)["services"]


@files
def test_compose_takes_the_files(files: tuple[str, ...]) -> None:
    assert OURS | {"redis", "proxy", "statsd", "prometheus", "grafana"} <= set(services(files))


@files
def test_commands_flags_and_variables_are_real(files: tuple[str, ...]) -> None:
    runs = [one for name, service in services(files).items() if (one := service_run(name, service))]
    assert {one.where.removeprefix("service ") for one in runs} == OURS
    for one in runs:
        parsed(one)


@files
def test_health_checks_are_real(files: tuple[str, ...]) -> None:
    for name, service in services(files).items():
        check, ran = service.get("healthcheck", {}).get("test"), service_run(name, service)
        if ran is not None and check is not None:
            parsed_check(check[1:], ran)


@files
def test_each_is_who_it_says_to_redis_and_has_the_password(files: tuple[str, ...]) -> None:
    roles = {"balancer": Role.BALANCER, "worker": Role.WORKER, "agent": Role.AGENT, "operator": Role.BALANCER}
    secrets = compose(*files)["secrets"]
    for name, role in roles.items():
        service = services(files)[name]
        environment = service["environment"]
        assert environment["PADDLER_REDIS_USERNAME"] == user_name(role, "default")
        (secret,) = (one["source"] for one in service["secrets"])
        assert environment["PADDLER_REDIS_PASSWORD_FILE"] == f"/run/secrets/{secret}"
        assert Path(secrets[secret]["file"]) == DOCKER / "secrets" / role


@files
def test_the_root_is_read_only_and_rights_are_few(files: tuple[str, ...]) -> None:
    for name, service in services(files).items():
        assert service["read_only"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        if name != "redis":  # its image begins as root and becomes another
            assert service["cap_drop"] == ["ALL"], name


@files
def test_a_stop_leaves_time_for_the_grace(files: tuple[str, ...]) -> None:
    service = services(files)["agent"]
    ran = service_run("agent", service)
    assert ran is not None
    assert seconds(service["stop_grace_period"]) * 1000 >= parsed(ran)["grace_ms"] + 10_000


def test_agents_share_the_models() -> None:
    (volume,) = services(())["agent"]["volumes"]
    assert volume["target"] == images()["agent"].environment["PADDLER_CACHE_DIR"]
    assert volume["type"] == "volume"
    assert "container_name" not in services(())["agent"], "it could not be scaled"


def test_there_are_two_balancers_and_the_proxy_finds_them() -> None:
    assert services(())["balancer"]["deploy"]["replicas"] == 2
    config = (DOCKER / "haproxy/haproxy.cfg").read_text()
    ran = service_run("balancer", services(())["balancer"])
    assert ran is not None
    values = parsed(ran)
    addresses = ("management_addr", "inference_addr", "compat_openai_addr", "web_admin_panel_addr")
    ports = {str(values[name].port) for name in addresses}
    assert set(re.findall(r"server-template balancer- \d+ balancer:(\d+)", config)) == ports
    assert set(re.findall(r"bind :(\d+)", config)) == ports
    assert {str(port["target"]) for port in services(())["proxy"]["ports"]} == ports


def test_without_keys_it_is_there_for_this_machine_alone() -> None:
    """`--insecure` and a port for others never come together."""
    for chosen in FILES:
        published = [port for service in services(chosen).values() for port in service.get("ports", [])]
        is_open = any(port.get("host_ip") != "127.0.0.1" for port in published)
        assert services(chosen)["balancer"]["environment"]["PADDLER_INSECURE"] == ("false" if is_open else "true")
        management = [port for port in published if port["target"] in (8060, 8062)]
        assert all(port["host_ip"] == "127.0.0.1" for port in management)
        assert set(services(chosen)["balancer"]["environment"]["PADDLER_ALLOWED_HOST"].split()) == {"balancer", "proxy"}
    assert services(("compose.public.yaml",))["proxy"]["ports"][0].get("host_ip") is None


def test_the_shared_store_forgets() -> None:
    chosen = services(("compose.kv.yaml",))
    ran = service_run("agent", chosen["agent"])
    assert ran is not None
    values = parsed(ran)
    assert values["kv_url"] == "redis://kv:6379/0"
    assert values["kv_addr"].host == "0.0.0.0"
    assert {"--maxmemory", "allkeys-lru"} <= set(chosen["kv"]["command"])
    assert "ports" not in chosen["kv"]


def test_statsd_is_where_they_send() -> None:
    flags = dict(one.removeprefix("--").split("=", 1) for one in services(())["statsd"]["command"])
    for name in ("balancer", "worker"):
        ran = service_run(name, services(())[name])
        assert ran is not None
        address = parsed(ran)["statsd_addr"]
        assert (address.host, f":{address.port}") == ("statsd", flags["statsd.listen-udp"])
    targets = [
        target
        for job in cast(Json, yaml.safe_load((DOCKER / "prometheus/prometheus.yaml").read_text()))["scrape_configs"]
        for config in job.get("static_configs", [])
        for target in config["targets"]
    ]
    assert f"statsd{flags['web.listen-address']}" in targets


def test_every_mounted_file_is_there() -> None:
    for chosen in FILES:
        for name, service in services(chosen).items():
            for volume in service.get("volumes", []):
                if volume["type"] == "bind":
                    assert Path(volume["source"]).exists(), f"{name}: {volume['source']}"


def test_every_user_of_redis_has_a_secret() -> None:
    """But for the autoscaler's: no container starts others."""
    made = {Path(one["file"]).name for one in compose("compose.public.yaml")["secrets"].values()}
    ours = {str(role) for role in ROLES if role is not Role.AUTOSCALE}
    assert ours | {"users.acl", "grafana", "prometheus"} == made


def seconds(duration: str) -> float:
    """Of Go: 1m15s."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))
