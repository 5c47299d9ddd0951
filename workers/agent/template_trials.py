"""Trying a chat template that nobody uses yet, as operators do while they write one.

The same code renders it as for a request, in a thread: neither the engine nor what else is heard waits for it. A
template that loops for long is stopped by a trace of its lines, as nothing else can stop a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Generator
from types import FrameType, TracebackType
from typing import Any

import jinja2

from paddler.clock import Clock
from paddler.engine import EngineInfo
from paddler.errors import InvalidField
from paddler.jobs.enquiry import answer
from paddler.logs import get_logger
from paddler.store.client import TROUBLE
from paddler.store.scripts import PoolScripts
from paddler.wire.agent import TryTemplate
from paddler.wire.trials import Source, TemplateTrial, encode_trial
from workers.agent.rendering import local_time, template_variables
from workers.agent.templates import ChatTemplate, TemplateError

log = get_logger(__name__)

LIMIT_S = 1.0
MAX_SHOWN = 100_000
"""Characters of a prompt."""
MAX_WAITING = 3
"""More would not be answered while anybody waits for it."""
ARCHITECTURE, OWN = "general.architecture", "tokenizer.chat_template"
"""In the header of every GGUF, and where its template is."""
_FILE = "<template>"
"""What jinja2 calls a template that is no file, in tracebacks and in code."""


class TemplateTrials:
    """Of one agent, one at a time."""

    def __init__(self, pool: PoolScripts, info: EngineInfo, clock: Clock) -> None:
        self._pool = pool
        self._info = info
        self._clock = clock
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    def start(self, asked: TryTemplate, override: str | None) -> None:
        """Answers later; who asks beyond `MAX_WAITING` hears nothing, as of an agent that is busy."""
        if len(self._running) >= MAX_WAITING:
            return
        task = asyncio.create_task(self._run(asked, override))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, asked: TryTemplate, override: str | None) -> None:
        async with self._turn:
            trial = await asyncio.to_thread(try_template, asked, self._info, override, self._clock)
        try:
            await answer(self._pool, asked.question_id, encode_trial(trial))
        except TROUBLE as error:
            log.warning("could not tell what became of a chat template", error=str(error))


def try_template(asked: TryTemplate, info: EngineInfo, override: str | None, clock: Clock) -> TemplateTrial:
    """`override` is the template that the agent uses in place of its model's own."""
    source, content = _chosen(asked.template, override, info)
    if ARCHITECTURE not in info.metadata:
        return TemplateTrial(error="this agent passes messages on to another server, which has templates of its own")
    if content is None:
        return TemplateTrial(error=f"{info.model} has no chat template of its own", source=source)
    request = asked.request
    try:
        with _limited(clock):
            template = ChatTemplate(content, bos=info.bos, eos=info.eos, today=local_time(clock))
            variables = template_variables(request, template)
            prompt = template.render_chat(request, variables) + request.beginning
    except TemplateError as error:
        return TemplateTrial(error=str(error), line=_line_of(error.__cause__), source=source)
    except InvalidField as error:
        return TemplateTrial(error=error.message, line=_line_of(error.__cause__ or error.__context__), source=source)
    except _TookTooLong as error:
        words = f"the chat template is not done after {LIMIT_S:g} s: does it loop without an end?"
        return TemplateTrial(error=words, line=error.line, source=source)
    return TemplateTrial(prompt=prompt[:MAX_SHOWN], is_cut=len(prompt) > MAX_SHOWN, source=source)


def _chosen(given: str | None, override: str | None, info: EngineInfo) -> tuple[Source, str | None]:
    if given is not None:
        return "given", given
    if override is not None:
        return "override", override
    return "model", info.metadata.get(OWN)


class _TookTooLong(BaseException):
    """No `Exception`: whatever catches those would go on, and without a trace."""

    def __init__(self, line: int | None) -> None:
        super().__init__()
        self.line = line


@contextlib.contextmanager
def _limited(clock: Clock) -> Generator[None]:
    """Raises `_TookTooLong` in a line of a template that runs in this thread after the time is over."""
    deadline = clock.monotonic() + LIMIT_S

    def in_template(frame: FrameType, _event: str, _arg: Any) -> Any:
        if clock.monotonic() > deadline:
            template = frame.f_globals.get("__jinja_template__")
            raise _TookTooLong(template.get_corresponding_lineno(frame.f_lineno) if template else None)
        return in_template

    def anywhere(frame: FrameType, _event: str, _arg: Any) -> Any:
        return in_template if frame.f_code.co_filename == _FILE else None

    before = sys.gettrace()
    sys.settrace(anywhere)
    try:
        yield
    finally:
        sys.settrace(before)


def _line_of(error: BaseException | None) -> int | None:
    """Where in the template it happened: jinja2 writes lines of the template into tracebacks."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    line: int | None = None
    step: TracebackType | None = None if error is None else error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == _FILE:
            line = step.tb_lineno
        step = step.tb_next
    return line
