"""Logging of every process: structlog in front, one handler on stderr behind, stdlib loggers routed through it.

A record is one line: `console` for people, `json` for machines (keys `time`, `level`, `process`, `logger`, `event`,
then what the call adds). No prompt or generated text is ever logged: log a request's id and sizes. As a net under
that rule, values of the names in `TEXT_FIELDS` are replaced by their length, those of `SECRET_FIELDS` altogether, and
tracebacks show no local variables.

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

from paddler.log_writer import LineWriter

TEXT_FIELDS = frozenset({"prompt", "messages", "content", "text", "payload", "body", "output", "stop"})
SECRET_FIELDS = frozenset({"api_key", "authorization", "password", "secret", "token", "x_api_key"})
QUIETER = ("arq.worker",)
"""Loggers that at info say what we say ourselves, or say it twice a second; heard from warning on, or at debug."""
INDISCREET = ("uvicorn.error", "websockets", "httpx", "httpcore", "httpx2", "httpcore2", "urllib3", "PIL")
"""Loggers that below warning tell what passes through them: messages of WebSockets, headers, paths with their queries,
URLs with their signatures and tokens. Never heard there, as prompts and keys are in that."""

FIRST_FIELDS = ("time", "level", "process", "logger", "event")


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger for a module: `log = get_logger(__name__)`. It may be made before `configure` runs."""
    return cast(FilteringBoundLogger, structlog.stdlib.get_logger(name))


def configure(process: str, level: str = "info", format: str = "auto", *, stream: TextIO | None = None) -> None:
    """Set up logging for this process; called once, by its composition root.

    `process` is what the records say, such as `balancer`. `level` and `format` are those of `settings.log_options`.
    Without a `stream` lines go to stderr by a thread (`paddler/log_writer.py`), so that nothing waits for whoever reads
    them. A second call replaces the first.
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

    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final)
    handler = logging.StreamHandler(out) if stream is not None else _new_handler(out, formatter)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old, ThreadedHandler):
            old.close()
    root.addHandler(handler)
    root.setLevel(number)
    for name in QUIETER:
        logging.getLogger(name).setLevel(number if number == logging.DEBUG else max(number, logging.WARNING))
    for name in INDISCREET:
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


class ThreadedHandler(logging.Handler):
    """Formats where the record is made, which is what its values mean, and writes in a thread."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.put(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
        super().close()


def flush() -> None:
    """Have written what was logged, before a process ends without a word (`os._exit`). Not for long."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def num_dropped() -> int:
    """Lines of this process's log that nobody can read: there was no room for them, or they could not be written."""
    handlers = logging.getLogger().handlers
    return sum(handler.writer.num_dropped for handler in handlers if isinstance(handler, ThreadedHandler))


def _new_handler(out: TextIO, formatter: logging.Formatter) -> logging.Handler:
    """Python itself flushes and closes handlers as it ends."""
    try:
        fd = out.fileno()
    except (OSError, ValueError):  # a stream of a test
        return logging.StreamHandler(out)

    def told(num: int, why: str | None) -> str:
        message = (
            f"lines of the log were dropped, as {'nobody read them' if why is None else 'they could not be written'}"
        )
        record = logging.LogRecord(__name__, logging.WARNING, "", 0, message, (), None)
        record.__dict__["lines"] = num
        if why is not None:
            record.__dict__["error"] = why
        return formatter.format(record)

    return ThreadedHandler(LineWriter(fd, told))


def hide_text(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what may be prompt or generated text by its length, and what may be a key altogether."""
    for name in TEXT_FIELDS & event.keys():
        value = event[name]
        event[name] = f"<{len(value)} hidden>" if isinstance(value, Sized) else "<hidden>"
    for name in SECRET_FIELDS & event.keys():
        event[name] = "<hidden>"
    return event


def _to_json(value: object, **_options: object) -> str:
    # structlog passes `default=`, the hook of the json module; msgspec has its own.
    return msgspec.json.encode(value, enc_hook=repr).decode()
