"""What a check of `paddler doctor` says."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`said` is one sentence without its full stop; `remedy` is what to do, and is there unless all is well."""

    check: str
    level: Level
    said: str
    remedy: str = ""


def ok(check: str, said: str) -> Finding:
    return Finding(check=check, level=Level.OK, said=said)


def warn(check: str, said: str, remedy: str) -> Finding:
    return Finding(check=check, level=Level.WARN, said=said, remedy=remedy)


def fail(check: str, said: str, remedy: str) -> Finding:
    return Finding(check=check, level=Level.FAIL, said=said, remedy=remedy)
