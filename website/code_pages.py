"""The reference of errors and of the keys in Redis, read from the modules that define them."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from paddler import errors, store
from paddler.store.keys import DEFAULT_PREFIX, PoolKeys
from website.markdown import code, page, plain, table

SEPARATOR = " · "
"""What stands between type, writer, reader, TTL and bound in the docstring of a key."""

KNOWN: dict[str, Any] = {
    "prefix": DEFAULT_PREFIX,
    "pool": "<pool>",
    "base": f"{DEFAULT_PREFIX}:{{<pool>}}",
    "pool_base": f"{DEFAULT_PREFIX}:{{<pool>}}",
    "keys": PoolKeys(DEFAULT_PREFIX, "<pool>"),
}


def error_page() -> str:
    rows = [
        (code(one.code), str(one.status), "yes" if one.retryable else "no", plain(inspect.getdoc(one) or ""))
        for one in sorted(errors.leaves().values(), key=lambda one: (one.status, one.code))
    ]
    return page("# Errors", ERRORS, table(("code", "status", "may succeed later", "what"), rows))


ERRORS = """\
`code` of an error object, on every route that has OpenAI's form of errors, in logs and as the label `outcome` of
`paddler_request_outcomes_total`. It is stable; the message is for people. What may succeed later carries `Retry-After`
and `x-should-retry: true`."""


def keys_page() -> str:
    modules = [import_module(f"{store.__name__}.{one.name}") for one in pkgutil.iter_modules(store.__path__)]
    found = [one for one in modules if one.__name__.endswith("keys")]
    found.sort(key=lambda one: (one.__name__.rpartition(".")[2] != "keys", one.__name__))
    return page("# Keys in Redis", KEYS, *map(_module, found))


KEYS = """\
Every key, what it holds, who writes and who reads it, for how long, and what bounds it. A name in angle brackets stands
for a value. All keys of a pool have its name as hash tag, so that they are in one slot of a cluster. They begin with
`--redis-prefix`. `demand` and `demand:batch` are a public interface; all else is Paddler's own, and its changes are
marked **keys** in the changelog."""


def _module(module: ModuleType) -> str:
    about, rows = inspect.getdoc(module) or "", [(code(key), plain(words)) for key, words in key_rows(module)]
    title = module.__name__.replace(".", "/")
    return page(f"## {title}.py", plain(about.partition("\n\n")[0]), table(("key", "what"), rows))


def key_rows(module: ModuleType) -> Iterator[tuple[str, str]]:
    """The keys that a module builds, each with what its builder says of it."""
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", "") != module.__name__ or name.startswith("_"):
            continue
        if inspect.isfunction(thing):
            yield from _key(thing)
        elif inspect.isclass(thing):
            owner = thing(**_placeholders(thing.__init__))
            for method, one in vars(thing).items():
                if inspect.isfunction(one) and not method.startswith("_"):
                    yield from _key(getattr(owner, method))


def _key(builder: Callable[..., Any]) -> Iterator[tuple[str, str]]:
    words = inspect.getdoc(builder) or ""
    if inspect.signature(builder).return_annotation == "str" and SEPARATOR in " ".join(words.split()):
        built: str = builder(**_placeholders(builder))
        yield re.sub(r"\{[0-9a-f]{12}\}", "{<digest>}", built), words


def _placeholders(function: Callable[..., Any]) -> dict[str, Any]:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return {name: KNOWN.get(name, f"<{name.removesuffix('_id') if name != 'key_id' else 'key'}>") for name in names}
