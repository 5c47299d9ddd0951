"""`paddler acl`: the ACL users that a fleet needs, for an ACL file of Redis."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from paddler.settings import DEFAULT_POOL, DEFAULT_REDIS_PREFIX, POOL, REDIS_PREFIX, option
from paddler.store.acl import Role, acl_file


class _PasswordFile(click.ParamType[tuple[Role, str], str]):
    name = "ROLE=FILE"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Role, str]:
        role, _, path = value.partition("=")
        if role not in list(Role) or not path:
            self.fail(f"{value!r} is not ROLE=FILE, with one of {', '.join(Role)}.", param, ctx)
        try:
            password = Path(path).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{path} cannot be read: {error}.", param, ctx)
        if not password:
            self.fail(f"{path} is empty.", param, ctx)
        return Role(role), password


@click.command(name="acl")
@option("--pool", "pools", type=POOL, multiple=True, default=(DEFAULT_POOL,), help="A pool with agents; repeatable.")
@option("--redis-prefix", type=REDIS_PREFIX, default=DEFAULT_REDIS_PREFIX, help="What every key in Redis begins with.")
@option(
    "--password-file",
    "passwords",
    type=_PasswordFile(),
    multiple=True,
    help="The password of agent, balancer, worker, operator, autoscale or admin; printed is its hash. Repeatable.",
)
def command(*, pools: tuple[str, ...], redis_prefix: str, passwords: tuple[tuple[Role, str], ...]) -> None:
    """Print the users of an ACL file with what each kind of process needs, and no more.

    Nobody can be a user whose password is not given: set it with ACL SETUSER NAME '>PASSWORD'.
    """
    click.echo(acl_file(redis_prefix, pools, dict(passwords)), nl=False)
