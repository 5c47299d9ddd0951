"""Reading the whole input of a batch before anything of it is run, so that a mistake in it is told at once."""

from __future__ import annotations

from collections.abc import AsyncIterator

from paddler.batches.lines import LineFormat, LineProblem
from paddler.batches.records import MAX_LINES, LineError
from paddler.batches.splitting import MAX_LINE, LineTooLong, split_lines
from paddler.clock import Clock
from paddler.ids import derived_id

MAX_ERRORS = 100
"""Named; there may be more."""
LINES_A_TURN = 4
"""Read before everything else in this process has a turn: 50 us to some ms each."""


async def check_lines(
    pieces: AsyncIterator[bytes], endpoint: str, line_format: LineFormat, clock: Clock
) -> tuple[int, list[LineError]]:
    """How many requests there are, and what is wrong. Raises what reading the pieces raises."""
    errors: list[LineError] = []
    seen: set[bytes] = set()
    total = 0
    try:
        async for line, data in split_lines(pieces):
            total += 1
            if total > MAX_LINES:
                errors.append(LineError("too_many_lines", f"A batch may have {MAX_LINES} lines at most.", line))
                break
            if total % LINES_A_TURN == 0:
                await clock.sleep(0)
            try:
                call = await line_format.read(data, endpoint, seed=0, created=0)
            except LineProblem as problem:
                errors.append(LineError(problem.code, problem.message, line, problem.param))
            else:
                # Digests, which are small whatever a client calls its lines.
                digest = derived_id(call.custom_id).encode()
                if digest in seen:
                    told = f"`custom_id` {call.custom_id[:64]!r} is that of an earlier line; each needs its own."
                    errors.append(LineError("duplicate_custom_id", told, line, "custom_id"))
                seen.add(digest)
            if len(errors) >= MAX_ERRORS:
                break
    except LineTooLong as error:
        errors.append(LineError("line_too_long", f"A line may have {MAX_LINE} bytes at most.", error.line))
    if not total and not errors:
        errors.append(LineError("empty_file", "The file has no line."))
    return total, errors
