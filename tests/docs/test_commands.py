"""What the documents say to type is typed, before a fleet with the real model, block by block as they stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_blocks import SHELLS, blocks, pages
from doc_fleet import DocFleet, Shell

RUN = (*SHELLS, "python")
PAGES = [path for path in pages() if any(one.language in RUN and not one.reason for one in blocks(path))]

pytestmark = [pytest.mark.xdist_group("docs"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DocFleet]:
    fleet = DocFleet(tmp_path_factory.mktemp("fleet"))
    try:
        fleet.wait_ready()
        yield fleet
    finally:
        fleet.end()


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_says_to_type_works(page: str, fleet: DocFleet, tmp_path: Path) -> None:
    shell = Shell(fleet, tmp_path)
    try:
        for block in blocks(page):
            if block.language in RUN and not block.reason:
                shell.type(block)
        shell.end()
    finally:
        fleet.tidy()
