"""One line a record, stdlib and structlog alike, and never what people wrote to a model."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog

from paddler import logs
from paddler.logs import get_logger

SECRET = "what nobody may read in a log"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    others = {name: logging.getLogger(name).level for name in ("asyncio", *logs.QUIETER, *logs.INDISCREET)}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, number in others.items():
        logging.getLogger(name).setLevel(number)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def records(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_json_record(stream: io.StringIO) -> None:
    logs.configure("balancer", "info", "json", stream=stream)
    get_logger("api.serve").info("listening", port=8061)
    (record,) = records(stream)
    assert list(record)[:5] == ["time", "level", "process", "logger", "event"]
    assert str(record.pop("time")).endswith("Z")
    assert record == {
        "level": "info",
        "process": "balancer",
        "logger": "api.serve",
        "event": "listening",
        "port": 8061,
    }


def test_a_logger_made_before_configure_obeys_it(stream: io.StringIO) -> None:
    log = get_logger("early")
    logs.configure("agent", "warning", "json", stream=stream)
    log.info("not heard")
    log.warning("heard")
    assert [record["event"] for record in records(stream)] == ["heard"]
    logs.configure("agent", "debug", "json", stream=stream)
    log.debug("now heard")
    assert [record["event"] for record in records(stream)] == ["heard", "now heard"]


def test_stdlib_loggers_come_the_same_way(stream: io.StringIO) -> None:
    logs.configure("balancer", "info", "json", stream=stream)
    logging.getLogger("litestar").info("Started on %s", "x", extra={"pid": 7})
    (record,) = records(stream)
    assert (record["logger"], record["event"], record["pid"]) == ("litestar", "Started on x", 7)


def test_a_warning_is_logged(stream: io.StringIO) -> None:
    logs.configure("worker", "info", "json", stream=stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)  # catch_warnings puts back what configure replaced
        warnings.warn("careful", stacklevel=1)
    assert "careful" in str(records(stream)[0]["event"])


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("field", sorted(logs.TEXT_FIELDS))
def test_text_of_people_and_models_is_hidden(stream: io.StringIO, form: str, field: str) -> None:
    logs.configure("agent", "debug", form, stream=stream)
    get_logger("x").info("request", **{field: SECRET})
    logging.getLogger("y").info("request", extra={field: [SECRET]})
    assert SECRET not in stream.getvalue()
    assert f"<{len(SECRET)} hidden>" in stream.getvalue()


@pytest.mark.parametrize("field", sorted(logs.SECRET_FIELDS))
def test_keys_are_hidden(stream: io.StringIO, field: str) -> None:
    logs.configure("agent", "debug", "json", stream=stream)
    get_logger("x").info("request", **{field: SECRET})
    assert records(stream)[0][field] == "<hidden>"


@pytest.mark.parametrize("name", logs.INDISCREET)
def test_what_libraries_tell_of_what_passes_through_them_is_never_heard(stream: io.StringIO, name: str) -> None:
    logs.configure("balancer", "debug", "json", stream=stream)
    logging.getLogger(f"{name}.part").info(SECRET)
    logging.getLogger(name).debug(SECRET)
    logging.getLogger(name).warning("heard")
    assert [record["event"] for record in records(stream)] == ["heard"]


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variables(stream: io.StringIO, form: str) -> None:
    logs.configure("agent", "debug", form, stream=stream)
    prompt = SECRET.upper()
    try:
        raise RuntimeError(f"{len(prompt)} characters")
    except RuntimeError:
        get_logger("x").exception("failed")
    assert "RuntimeError: 29 characters" in stream.getvalue()
    assert prompt not in stream.getvalue()


def test_auto_is_json_where_nobody_watches(stream: io.StringIO) -> None:
    logs.configure("agent", "info", "auto", stream=stream)
    get_logger("x").info("hello")
    assert records(stream)[0]["event"] == "hello"


def test_console_says_it_in_a_line(stream: io.StringIO) -> None:
    logs.configure("agent", "info", "console", stream=stream)
    get_logger("x").info("registered", slots=4)
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("registered [x] slots=4")
    assert "\x1b" not in line


def test_arq_is_quiet_unless_asked(stream: io.StringIO) -> None:
    logs.configure("worker", "info", "json", stream=stream)
    logging.getLogger("arq.worker").info("a cron run")
    assert records(stream) == []
    logs.configure("worker", "debug", "json", stream=stream)
    logging.getLogger("arq.worker").info("a cron run")
    assert len(records(stream)) == 1
