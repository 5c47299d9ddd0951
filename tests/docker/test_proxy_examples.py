"""The proxies of docs/deployment.md take their configurations."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from container_files import DOCKER, ROOT
from lacking import lacks

DOCS = (ROOT / "docs/deployment.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)
    return found


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/local/bin:/usr/bin:/usr/sbin:/sbin")
    if found is None:
        lacks(f"{name} is not installed: apt-get install {name}")
    return found


def check(*command: str, home: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"HOME": str(home)})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_nginx_takes_it(tmp_path: Path) -> None:
    """But for the certificate, which is another one here: none."""
    server = block("nginx").replace("listen 443 ssl;", "listen 127.0.0.1:8443;")
    server = re.sub(r"^ *ssl_certificate.*\n", "", server, flags=re.MULTILINE)
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{name}_temp_path {tmp_path}/{name};\n" for name in places)
    config = tmp_path / "nginx.conf"
    config.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{server}}}\n")
    said = check(program("nginx"), "-t", "-q", "-e", "stderr", "-c", str(config), home=tmp_path)
    assert "warn" not in said


def test_haproxy_takes_it(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    config.write_text(block("haproxy"))
    assert "WARNING" not in check(program("haproxy"), "-c", "-f", str(config), home=tmp_path)


def test_what_haproxy_is_shown_is_in_the_file_of_the_containers() -> None:
    shipped = {line.strip() for line in (DOCKER / "haproxy/haproxy.cfg").read_text().splitlines()}
    own = [line.strip() for line in block("haproxy").splitlines() if line.strip()]
    assert [line for line in own if line not in shipped and not line.startswith("server ")] == []
    checks = {line.partition(" check ")[2] for line in own if line.startswith("server ")}
    assert {f"default-server {one}" for one in checks} <= shipped


def test_caddy_takes_it(tmp_path: Path) -> None:
    config = tmp_path / "Caddyfile"
    config.write_text(block("caddy"))
    check(program("caddy"), "validate", "--adapter", "caddyfile", "--config", str(config), home=tmp_path)
