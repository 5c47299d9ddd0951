"""The progress of several files as that of one."""

from __future__ import annotations

from collections.abc import Sequence

from workers.agent.fetch.cache import Progress


class Totals:
    """Tells `report` of all files together. What they have in all is known when it is known of each."""

    def __init__(self, names: Sequence[str], report: Progress) -> None:
        self._done = dict.fromkeys(names, 0)
        self._sizes: dict[str, int | None] = dict.fromkeys(names)
        self._report = report

    def expect(self, name: str, size: int) -> None:
        self._sizes[name] = size

    def tell(self, name: str, done: int, size: int | None) -> None:
        self._done[name] = done
        self._sizes[name] = size or self._sizes[name]
        sizes = list(self._sizes.values())
        known = [one for one in sizes if one is not None]
        self._report(sum(self._done.values()), sum(known) if len(known) == len(sizes) else None, name)

    def finish(self, name: str, size: int) -> None:
        self._done[name] = self._sizes[name] = size
