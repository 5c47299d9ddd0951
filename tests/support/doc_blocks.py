"""The blocks of code in README and docs/, and the command lines of ours among them.

A block that is not run says why, behind its language or in a comment on the line before:

    ```sh no-run: needs a GPU
    <!-- no-run: needs a GPU -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from msgspec import Struct

from website.repository import ROOT, documents

SHELLS = ("sh", "bash", "console")
COMMENT = re.compile(r"^ *<!-- no-run: (?P<reason>.+?) *-->$")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)(?: +no-run: (?P<reason>.+))?(?P<rest>.*)$")
PROMPT = re.compile(r"^\$ ", re.MULTILINE)
ENDS = {"|", "||", "&&", ";", "&", "(", ")", "{", "}", ">", ">>", "<", "2>", "\n"}


class Block(Struct, frozen=True):
    """`line` is that of its fence; `reason` why it is not run."""

    path: str
    line: int
    language: str
    reason: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Of a shell: its commands, lines that go on joined, comments and what a console shows left out."""
        lines = self.code.splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return list(joined(lines))


def pages() -> list[str]:
    """The documents whose commands are tested, as paths of the repository."""
    tops = [path for path in documents() if path.endswith("README.md")]
    return tops + sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))


def blocks(path: str) -> list[Block]:
    """Raises `AssertionError` for a fence that says more than its language and a reason."""
    found: list[Block] = []
    lines = (ROOT / path).read_text().splitlines()
    start: re.Match[str] | None = None
    begun = 0
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start, begun = fence, number
            assert not fence["rest"], f"{path}:{number}: only `no-run: reason` may stand behind the language"
            continue
        above = COMMENT.match(lines[begun - 2]) if begun > 1 else None
        reason = start["reason"] or (above["reason"] if above else "")
        code = "\n".join(text.removeprefix(start["indent"]) for text in lines[begun : number - 1])
        found.append(Block(path, begun, start["language"], reason, code))
        start = None
    assert start is None, f"{path}:{begun}: this fence has no end"
    return found


def joined(lines: list[str]) -> Iterator[str]:
    """Whole commands: a line that ends with a backslash or a pipe, or within quotes, goes on."""
    command = ""
    for line in lines:
        command = f"{command}\n{line}" if command else line
        if not command.strip() or command.lstrip().startswith("#"):
            command = ""
        elif not _goes_on(command):
            yield command
            command = ""
    assert not command, f"a command without an end: {command}"


def _goes_on(command: str) -> bool:
    if command.endswith("\\") or command.rstrip().endswith(("|", "&&", "||")):
        return True
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return False


def words(command: str) -> list[str]:
    """As a shell reads them, its operators as words of their own."""
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars="();|&<>")
    lexer.whitespace_split = True
    return list(lexer)


def own_commands(command: str) -> Iterator[list[str]]:
    """The arguments of each `paddler` in a command: by itself, in a container of ours, or what `make run` hands on."""
    found = words(command)
    for number, word in enumerate(found):
        for inner in re.findall(r"\$\(([^()]*)\)", word):  # within quotes; elsewhere they are words of their own
            yield from own_commands(inner)
        rest = [*found[number + 1 :], "\n"]
        rest = rest[: next(at for at, one in enumerate(rest) if one in ENDS or set(one) <= set("();|&<>"))]
        before = found[:number]
        if (word == "paddler" and (not before or before[-1] not in ("namespace", "-n"))) or (
            word == "operator" and "compose" in before and "run" in before
        ):
            yield rest
        elif word.startswith("ARGS=") and before[-2:] == ["make", "run"]:
            yield ["up", *shlex.split(word.removeprefix("ARGS="))]


def shown_commands(path: str) -> Iterator[tuple[str, list[str]]]:
    """All of them in a document, in fences or indented, with their place."""
    for block in blocks(path):
        if block.language in SHELLS:
            for command in block.commands:
                yield from ((block.where, arguments) for arguments in own_commands(command))
    text = re.sub(r"```.*?```", lambda found: "\n" * found[0].count("\n"), (ROOT / path).read_text(), flags=re.DOTALL)
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if re.match(r" {4}paddler [a-z]", line):
            whole = next(joined([one.strip() for one in lines[number - 1 :]]))
            yield from ((f"{path}:{number}", arguments) for arguments in own_commands(whole))
