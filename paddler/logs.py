"""Logging of every process: structlog in front, one handler on stderr behind, stdlib loggers routed through it.

A record is one line: `console` for people, `json` for machines (keys `time`, `level`, `process`, `logger`, `event`,
then what the call adds). No prompt or generated text is ever logged: log a request's id and sizes. As a net under
that rule, values of the names in `TEXT_FIELDS` are replaced by their length, and tracebacks show no local variables.

Uvicorn and Litestar are told not to configure logging themselves (`log_config=None`, `logging_config=None`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sized
from typing import TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

TEXT_FIELDS = frozenset({"prompt", "messages", "content", "text", "payload", "body", "output", "stop"})
QUIETER = ("arq.worker", "uvicorn.error")
"""Loggers that at info say what we say ourselves, or say it twice a second; heard from warning on, or at debug."""
SILENT = ("httpx", "httpcore", "httpx2", "httpcore2")
"""Loggers that name URLs with their signatures and tokens: heard from warning on, at any level."""

FIRST_FIELDS = ("time", "level", "process", "logger", "event")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger for a module: `log = get_logger(__name__)`. It may be made before `configure` runs."""
    return cast(FilteringBoundLogger, structlog.stdlib.get_logger(name))


def configure(process: str, level: str = "info", format: str = "auto", *, stream: TextIO | None = None) -> None:
    """Set up logging for this process; called once, by its composition root.

    `process` is what the records say, such as `balancer`. `level` and `format` are those of `settings.log_options`.
    A second call replaces the first.
    """
    out: TextIO = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    console = format == "console" or (format == "auto" and out.isatty())

    def in_order(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event["process"] = process
        return {**{name: event[name] for name in FIRST_FIELDS if name in event}, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f" if console else "iso", utc=not console, key="time"),
        hide_text,
    ]
    final: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if console:
        final.append(
            structlog.dev.ConsoleRenderer(
                colors=out.isatty(),
                timestamp_key="time",
                pad_event_to=0,
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    else:
        final += [structlog.processors.format_exc_info, in_order, structlog.processors.JSONRenderer(_to_json)]

    handler = logging.StreamHandler(out)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in QUIETER:
        logging.getLogger(name).setLevel(number if number == logging.DEBUG else max(number, logging.WARNING))
    for name in SILENT:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    # At debug asyncio tells of its selectors, which is of no use to who debugs Paddler.
    logging.getLogger("asyncio").setLevel(max(number, logging.INFO))
    logging.captureWarnings(capture=True)

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # a cached logger would keep the level of an earlier `configure`
    )


def hide_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what may be prompt or generated text by its length."""
    for name in TEXT_FIELDS & event.keys():
        value = event[name]
        event[name] = f"<{len(value)} hidden>" if isinstance(value, Sized) else "<hidden>"
    return event


def _to_json(value: object, **_options: object) -> str:
    # structlog passes `default=`, the hook of the json module; msgspec has its own.
    return msgspec.json.encode(value, enc_hook=repr).decode()
