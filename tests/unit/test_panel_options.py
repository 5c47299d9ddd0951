"""Where the panel is served, and whose pages may use the other services because of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from structlog.testing import capture_logs

from paddler.panel_options import panel_address, panel_origins
from paddler.settings import Address


def test_the_old_flag_means_the_default_address_and_says_what_to_say_instead() -> None:
    with capture_logs() as logged:
        assert panel_address(None, is_dashboard_enabled=True) == Address("127.0.0.1", 8062)
        assert panel_address(Address("::1", 1), is_dashboard_enabled=True) == Address("::1", 1)
    assert [entry["log_level"] for entry in logged] == ["warning", "warning"]
    assert "--web-admin-panel-addr 127.0.0.1:8062" in logged[0]["event"]
    assert panel_address(None, is_dashboard_enabled=False) is None


def test_paddler_up_takes_the_old_flag() -> None:
    """Which has a panel without it: all that is to be seen here, before it fails to reach a Redis, is the warning."""
    command = (sys.executable, "-P", "-m", "paddler", "up", "--management-dashboard-enable")
    done = subprocess.run(
        (*command, "--redis-url", "redis://127.0.0.1:1"), capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "--management-dashboard-enable is deprecated; say --web-admin-panel-addr 127.0.0.1:8062" in done.stderr
    assert "cannot be used" in done.stderr


@pytest.mark.parametrize(
    ("address", "is_tls", "origins"),
    [
        (None, False, ()),
        (Address("127.0.0.1", 8062), False, ("http://127.0.0.1:8062",)),
        (Address("::1", 8062), True, ("https://[::1]:8062",)),
        (Address("Panel.example", 80), False, ("http://panel.example",)),
        (Address("panel.example", 80), True, ("https://panel.example:80",)),
    ],
)
def test_origins_are_as_browsers_send_them(address: Address | None, is_tls: bool, origins: tuple[str, ...]) -> None:
    assert panel_origins(address, is_tls=is_tls) == origins
