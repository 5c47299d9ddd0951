"""Where the web admin panel is served: flags of the balancer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from paddler.logs import get_logger
from paddler.settings import ADDRESS, Address, option

PANEL_ADDR = "--web-admin-panel-addr"
DASHBOARD = "--management-dashboard-enable"
DEFAULT_ADDR = "127.0.0.1:8062"

_F = TypeVar("_F", bound=Callable[..., Any])

log = get_logger(__name__)


dashboard_option = option(DASHBOARD, is_flag=True, help=f"Deprecated: {PANEL_ADDR} {DEFAULT_ADDR}.")
"""Adds `management_dashboard_enable`, for `panel_address`; `paddler up` has a panel in any case."""


def panel_options(function: _F) -> _F:
    """Adds `web_admin_panel_addr` and `management_dashboard_enable`, the arguments of `panel_address`."""
    return option(
        PANEL_ADDR,
        type=ADDRESS,
        default=None,
        help=f"Serve the web admin panel, upstream's address is {DEFAULT_ADDR}.",
    )(dashboard_option(function))


def panel_address(given: Address | None, *, is_dashboard_enabled: bool) -> Address | None:
    """None: there is no panel. The old flag means the default address, and a warning."""
    if not is_dashboard_enabled:
        return given
    address = given or Address.parse(DEFAULT_ADDR)
    log.warning(f"{DASHBOARD} is deprecated; say {PANEL_ADDR} {address}")
    return address


def panel_origins(address: Address | None, *, is_tls: bool) -> tuple[str, ...]:
    """Whose pages may use the management and the inference service without being named (as Paddler 4)."""
    if address is None:
        return ()
    scheme, own_port = ("https", 443) if is_tls else ("http", 80)
    origin = f"{scheme}://{address}"
    return (origin.removesuffix(f":{own_port}").lower(),)
