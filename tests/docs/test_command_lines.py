"""Every `paddler` command line of the documents, run or not, is read by the parser of the command itself: commands and
flags are there, values may be given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from container_files import Run, find_command, parsed
from doc_blocks import blocks, pages, shown_commands

from website.repository import ROOT

PAGES = pages()
SAMPLES = {"$ID": "a1", "$REQUEST_ID": "default.r1", "$digest": "sha256:0"}


@pytest.mark.parametrize("page", PAGES)
def test_command_lines_are_read(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for where, arguments in shown_commands(page):
        given = [SAMPLES.get(one, one) for one in arguments if one != "..."]
        given = [re.sub(r"^(file://)?/(?:path/to|srv/paddler)/", rf"\1{tmp_path}/", one) for one in given]
        for one in given:
            if found := re.fullmatch(rf"(?:\w+=)?((?:{tmp_path}/)?[\w.-]+\.(?:gguf|jsonl|pem|txt))", one):
                Path(found[1]).write_text("x")  # some flags want a file that there is
        parsed(Run(where=where, arguments=given, environment={}))


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_flags_named_in_the_text_are_there(page: str) -> None:
    """`paddler agents drain --wait` in code marks: a subcommand and its flags, whatever their values."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for words in re.findall(r"`paddler ([a-z][^`]*)`", text):
        command, rest = find_command(words.split())
        known = {flag for one in command.params for flag in (*one.opts, *one.secondary_opts)} | {"--help"}
        flags = re.findall(r"(?<!\S)--[a-z][a-z-]*", " ".join(rest))
        assert [flag for flag in flags if flag not in known] == [], f"`paddler {words}`"


@pytest.mark.parametrize("page", PAGES)
def test_json_and_yaml_are_whole(page: str) -> None:
    for block in blocks(page):
        if block.language == "json":
            json.loads(block.code)
        elif block.language in ("yaml", "yml"):
            list(yaml.safe_load_all(block.code))


def test_reasons_are_given_where_a_block_is_run_nowhere() -> None:
    """A page cannot leave out a block without a word: each either runs (`test_commands.py`) or says why not."""
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason]
    assert all(len(reason) > 5 for reason in reasons)
