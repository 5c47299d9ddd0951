"""Messages of the next version and of the last: fields that nobody knows yet, and fields that nobody wrote yet."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Struct

from paddler.presence import Process
from paddler.wire.agent import (
    ApplyTemplate,
    Ask,
    CancelRequest,
    Control,
    CountTokens,
    Detokenize,
    Embed,
    Generate,
    Message,
    OperatorOrder,
    Payload,
    Poke,
    Rerank,
    Tokenize,
    Tool,
    ToolCall,
    TryTemplate,
)
from paddler.wire.answers import Answer, Counted, Detokenized, Templated, Tokenized
from paddler.wire.balancer import (
    Answered,
    Failed,
    Finished,
    FinishReason,
    Frame,
    Opened,
    Prefilled,
    Tokens,
    Usage,
    Vectors,
)
from paddler.wire.stored import StoredResponse
from paddler.wire.trials import TemplateTrial

ASKED = Generate(messages=(Message("user", "hi", tool_calls=(ToolCall("c", "f", "{}"),)),), tools=(Tool("f", "{}"),))
FRAMES = (
    *(Opened("a", 2, "v", "w"), Prefilled(300, 7), Tokens((1,), "a", 2.5), Vectors((b"v",), (1,)), Answered(b"\x01")),
    *(Finished(FinishReason.STOP, Usage(7, 2, 1), "END"), Failed("code", "no", 503, True, "model")),
)
CONTROLS = (Poke(7), CancelRequest("p.1"), Ask("q", "model_metadata"), OperatorOrder("drain"), TryTemplate("q", ASKED))
ANSWERS = (Tokenized((1,), (b"a",)), Detokenized("a"), Templated("p"), Counted(3))
PAYLOADS = (
    *(ASKED, Embed(inputs=("a",)), Rerank(query="q", documents=("d",)), Tokenize(text="t"), Detokenize(tokens=(1,))),
    *(ApplyTemplate(request=ASKED), CountTokens(request=ASKED)),
)
PROCESS = Process(kind="agent", version="1", host="h", pid=1, since_s=1, clock_ms=0, format=7)
ARRAYS: list[tuple[Any, Any]] = [
    *((frame, Frame) for frame in FRAMES),
    *((control, Control) for control in CONTROLS),
    *((answer, Answer) for answer in ANSWERS),
    (StoredResponse(b"[]", ("a",), 2), StoredResponse),
]
MAPS: list[tuple[Any, Any]] = [
    *((payload, Payload) for payload in PAYLOADS),
    (PROCESS, Process),
    (TemplateTrial(prompt="p"), TemplateTrial),
]


def name_of(value: Any) -> str:
    return type(value).__name__ if isinstance(value, Struct) else ""


@pytest.mark.parametrize(("message", "kind"), ARRAYS, ids=name_of)
def test_an_older_process_skips_what_stands_behind_the_fields_it_knows(message: Any, kind: Any) -> None:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    newer = msgspec.msgpack.encode([*fields, "invented later", {"and": 1}])
    assert msgspec.msgpack.decode(newer, type=kind) == message


@pytest.mark.parametrize(("message", "kind"), MAPS, ids=name_of)
def test_an_older_process_skips_fields_it_does_not_know(message: Any, kind: Any) -> None:
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(message))
    newer = msgspec.msgpack.encode(fields | {"invented_later": {"and": [1]}})
    assert msgspec.msgpack.decode(newer, type=kind) == message


@pytest.mark.parametrize(("message", "kind"), ARRAYS + MAPS, ids=name_of)
def test_a_newer_process_does_without_what_may_not_have_been_written(message: Any, kind: Any) -> None:
    """Every field but those that were there from the beginning has a default."""
    info = msgspec.inspect.type_info(type(message))
    assert isinstance(info, msgspec.inspect.StructType)
    required = [field.encode_name for field in info.fields if field.required]
    first = {name: getattr(message, name) for name in required}
    if info.array_like:
        assert required == [field.encode_name for field in info.fields][: len(required)], "new fields go last"
        tag = [] if info.tag is None else [info.tag]
        older = msgspec.msgpack.encode([*tag, *first.values()])
    else:
        older = msgspec.msgpack.encode(first | ({} if info.tag is None else {info.tag_field: info.tag}))
    assert msgspec.msgpack.decode(older, type=kind) == type(message)(**first)
