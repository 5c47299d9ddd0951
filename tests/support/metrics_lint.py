"""Is a text what Prometheus reads, and named as it asks for? The rules of `promtool check metrics`, and the stricter
ones of OpenMetrics about HELP, TYPE and the order of families."""

from __future__ import annotations

import re

KEPT_NAMES = {"paddler_slots_total"}
"""Paddler 4 called a gauge so."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SAMPLE = re.compile(
    r'(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>(?:[a-z_]+="(?:[^"\\\n]|\\[\\n"])*"(?:,|(?=\})))*)\})? '
    r"(?P<value>[^ ]+)"
)
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\n"])*)"')
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|Inf)|NaN")
_TYPES = ("gauge", "counter", "histogram")
_TYPE_WORDS = {"gauge", "counter", "histogram", "summary", "untyped"}
_NO_BASE_UNITS = {
    *("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks", "kilobytes", "megabytes"),
    *("kibibytes", "mebibytes", "bits", "percent", "ms", "us", "ns", "s", "sec", "b", "kb", "mb", "gb", "m", "h", "d"),
}
_RESERVED = ("_bucket", "_count", "_sum", "_created", "_info_total")


def faults_of(text: str) -> list[str]:
    """What is wrong, nothing if nothing is."""
    faults: list[str] = []
    if not text.endswith("\n"):
        faults.append("the last line does not end")
    families: dict[str, str] = {}
    helped: str | None = None
    current: str | None = None
    series: set[tuple[str, str]] = set()
    histograms: dict[tuple[str, str], list[tuple[float, float]]] = {}
    counts: dict[tuple[str, str], float] = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, helped, what = line.split(" ", 3)
            if not what.strip().endswith(".") and helped.startswith("paddler_"):
                faults.append(f"{helped}: HELP is no sentence")
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            if name != helped:
                faults.append(f"{name}: TYPE does not follow its HELP")
            if name in families:
                faults.append(f"{name}: there twice")
            families[name], current = kind, name
            faults += _name_faults(name, kind)
        else:
            found = _SAMPLE.fullmatch(line)
            if found is None or not _NUMBER.fullmatch(found["value"]):
                faults.append(f"no sample: {line}")
                continue
            name, labels, value = found["name"], found["labels"] or "", float(found["value"])
            kind = families.get(current or "", "")
            suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
            if name not in [f"{current}{suffix}" for suffix in suffixes]:
                faults.append(f"{name}: not below its own TYPE")
            if (name, labels) in series:
                faults.append(f"{name}{{{labels}}}: there twice")
            series.add((name, labels))
            pairs = dict(_LABEL.findall(labels))
            if kind != "histogram" and pairs.keys() & {"le", "quantile"}:
                faults.append(f"{name}: a label that histograms have")
            if kind == "counter" and not value >= 0:
                faults.append(f"{name}: below 0")
            if kind == "histogram":
                bound = pairs.pop("le", None)
                key = (current or "", str(sorted(pairs.items())))
                if name.endswith("_bucket"):
                    histograms.setdefault(key, []).append((float(bound or "nan"), value))
                elif name.endswith("_count"):
                    counts[key] = value
    for key, buckets in histograms.items():
        if buckets != sorted(buckets) or [number for _, number in buckets] != sorted(number for _, number in buckets):
            faults.append(f"{key}: buckets do not go up")
        if buckets[-1] != (float("inf"), counts.get(key)):
            faults.append(f"{key}: +Inf is not the count")
    return faults


def _name_faults(name: str, kind: str) -> list[str]:
    faults: list[str] = []
    words = name.split("_")
    if not _NAME.fullmatch(name):
        faults.append(f"{name}: not snake_case")
    if kind not in _TYPES:
        faults.append(f"{name}: {kind} is no type that is used here")
    if (kind == "counter") != name.endswith("_total") and name not in KEPT_NAMES:
        faults.append(f"{name}: counters end with _total, and nothing else does")
    if name.endswith(_RESERVED):
        faults.append(f"{name}: ends as a part of a histogram does")
    if bad := _TYPE_WORDS & set(words) | _NO_BASE_UNITS & set(words):
        faults.append(f"{name}: says {bad}")
    # "per_second" is a rate; a time or a size ends with its unit.
    last = words[-2] if name.endswith("_total") and len(words) > 1 else words[-1]
    units = [unit for unit in ("seconds", "bytes") if unit in words and last != unit]
    return faults + [f"{name}: does not end with {unit}" for unit in units]
