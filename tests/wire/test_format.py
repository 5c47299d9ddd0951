"""What a format is made of: keys, fields and words of the scripts, messages and records. Whoever changes it meets this.

`docs/upgrades.md` has the rules. Where they allow a change within the number, write the list anew:
`python tests/wire/test_format.py`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from paddler.jobs.lanes import FIELDS
from paddler.store.format import FORMAT, OLDEST_FORMAT
from paddler.store.keys import FileKeys, PoolKeys
from paddler.store.tenant_keys import TenantKeys

FOLDER = Path(__file__).parent
KEY_MODULES = (
    "desired_keys",
    "drain_keys",
    "keys",
    "metrics_keys",
    "panel_keys",
    "prefix_keys",
    "process_keys",
    "tenant_keys",
    "turn_keys",
)
RECORDS = (
    *("wire.agent", "wire.answers", "wire.balancer", "wire.stored", "wire.trials"),
    *("batches.records", "desired.schema", "issues", "model_facts", "presence", "store.format", "tenants.records"),
    "prefixes.records",
    "tier_stats",
)
RULES = """
Processes of other versions read and write this at the same time. See "What may change" in docs/upgrades.md:
+ a new line may come within the format, if an older process does no harm by not knowing of it, and this version does
  without it where an older process has not written it; then write the list anew: python tests/wire/test_format.py
- a line that goes, or means something else, needs a new FORMAT (paddler/store/format.py) and a list of its own.
"""


def words() -> list[str]:
    """A line each, sorted."""
    return sorted({*_keys(), *_lua(), *_structs(), *(f"agent {field}" for field in FIELDS)})


def _keys() -> Iterator[str]:
    for keys in (PoolKeys("paddler", "pool"), FileKeys("paddler"), TenantKeys("paddler", "tenant")):
        for _, build in inspect.getmembers(keys, inspect.ismethod):
            if build.__name__ not in ("__init__", "permanent", "_replace"):
                yield _key(build)
    for name in KEY_MODULES:
        module = import_module(f"paddler.store.{name}")
        for _, build in inspect.getmembers(module, inspect.isfunction):
            if build.__module__ == module.__name__ and (key := _key(build)).startswith("key paddler:"):
                yield key


def _key(build: Any) -> str:
    known = {"prefix": "paddler", "keys": PoolKeys("paddler", "pool"), "base": "paddler:{pool}"}
    known |= {"pool_base": "paddler:{pool}", "day": 1}
    names = inspect.signature(build).parameters
    said = (build.__doc__ or "").partition("·")[0].strip().partition(" of ")[0]
    return f"key {build(*(known.get(name, '*') for name in names))} {said}"


def _lua() -> Iterator[str]:
    for script in files("paddler.store").joinpath("lua").iterdir():
        code = re.sub(r"--.*", "", script.read_text())
        for word in re.findall(r"'([a-z_:]+)'", code):
            yield f"lua {word}"


def _structs() -> Iterator[str]:
    for name in RECORDS:
        module: ModuleType = import_module(f"paddler.{name}")
        for _, one in inspect.getmembers(module, inspect.isclass):
            if issubclass(one, msgspec.Struct) and one.__module__ == module.__name__:
                info = msgspec.inspect.type_info(one)
                assert isinstance(info, msgspec.inspect.StructType)
                fields = ", ".join(field.encode_name + "?" * (not field.required) for field in info.fields)
                tag = "" if info.tag is None else f"[{info.tag}]"
                yield f"struct {name}.{one.__name__}{tag}{' array' if info.array_like else ''}: {fields}"


def test_the_format_is_what_its_number_stands_for() -> None:
    listed = (FOLDER / f"format-{FORMAT}.txt").read_text().splitlines()
    found = words()
    changes = [f"+ {line}" for line in found if line not in listed]
    changes += [f"- {line}" for line in listed if line not in found]
    assert not changes, "\n".join([f"format {FORMAT} is something else now:", *changes, RULES])


def test_the_oldest_is_no_newer() -> None:
    assert 1 <= OLDEST_FORMAT <= FORMAT <= OLDEST_FORMAT + 1, "two formats at most, or nobody could test them all"


def test_the_document_knows_the_number() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \|", (FOLDER.parents[1] / "docs" / "upgrades.md").read_text(), re.MULTILINE)
    assert rows[-1] == (str(FORMAT), str(OLDEST_FORMAT))


if __name__ == "__main__":
    (FOLDER / f"format-{FORMAT}.txt").write_text("\n".join(words()) + "\n")
