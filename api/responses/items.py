"""The input of a response: from bytes to items, and from those to the turns of a conversation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw

from api.images import read_image_url
from api.responses.item_schema import (
    CallItem,
    CallOutputItem,
    Item,
    MessageItem,
    Part,
    ReasoningItem,
    ReferenceItem,
)
from api.responses.nested import decode_within, type_of
from api.responses.schema import NOT_YET
from api.responses.told import told_as_response
from api.validation import unsupported
from paddler.errors import InvalidField
from paddler.wire.agent import ImagePart, Message, TextPart, ToolCall

_TEXTS = ("input_text", "output_text", "text")
_OWN = {
    "text": _TEXTS,
    "annotations": _TEXTS,
    "logprobs": _TEXTS,
    "parsed": _TEXTS,
    "refusal": ("refusal",),
    "image_url": ("input_image",),
    "detail": ("input_image",),
}
"""Which types of parts a field belongs to."""

_NOT_YET = {name.removeprefix("input[]."): words for name, words in NOT_YET.items() if name.startswith("input[].")}
_message_decoder = msgspec.json.Decoder(MessageItem)
_typed_decoder = msgspec.json.Decoder(CallItem | CallOutputItem | ReasoningItem | ReferenceItem)
_items_decoder = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode


def read_items(input: str | Sequence[Raw]) -> list[Item | ReferenceItem]:
    """Raises `InvalidField`."""
    if isinstance(input, str):
        return [MessageItem("user", input, "message")]
    return [_item(f"input[{index}]", bytes(data)) for index, data in enumerate(input)]


def items_json(items: Sequence[Item]) -> bytes:
    """For `stored_items`."""
    return _encode(items)


def stored_items(data: bytes) -> list[Item]:
    """Those that `items_json` made bytes of."""
    items = read_items(_items_decoder.decode(data))
    return [item for item in items if not isinstance(item, ReferenceItem)]


def _item(where: str, data: bytes) -> Item | ReferenceItem:
    kind = type_of(where, data)
    if kind in (None, "message"):
        return decode_within(where, data, _message_decoder, _NOT_YET)
    if kind not in ("function_call", "function_call_output", "reasoning", "item_reference"):
        raise unsupported(f"{where}.type", f"An item of type `{kind[:60]}`")
    return decode_within(where, data, _typed_decoder, _NOT_YET)


class Conversation:
    """Puts items together to turns. What an assistant thinks, says and calls without an answer in between is one turn,
    as in a chat completion: reasoning, then content, then calls."""

    def __init__(self, instructions: str | None = None) -> None:
        self._messages: list[Message] = []
        self._call_ids: set[str] = set()
        self._reasoning: list[str] = []
        self._said: list[str] = []
        self._calls: list[ToolCall] = []
        if instructions:
            self._messages.append(Message("system", instructions))

    def add(self, items: Iterable[Item], name: str = "input") -> None:
        """Raises `InvalidField`, also for the output of a call that no item before it has made; `name` is what the
        client calls the items."""
        for index, item in enumerate(items):
            where = f"{name}[{index}]"
            match item:
                case ReasoningItem():
                    self._think(item)
                case MessageItem(role="assistant"):
                    self._say(where, item)
                case MessageItem():
                    self._flush()
                    role = "system" if item.role == "developer" else item.role
                    self._messages.append(_message(role, f"{where}.content", item.content))
                case CallItem(call_id, function, arguments):
                    self._calls.append(ToolCall(call_id, function, arguments))
                    self._call_ids.add(call_id)
                case CallOutputItem():
                    self._flush()
                    self._result(where, item)

    def messages(self) -> tuple[Message, ...]:
        """All turns. Raises `InvalidField` when there is none."""
        self._flush()
        if not self._messages:
            raise InvalidField("`input` is required: a text, or a list of at least one item.", param="input")
        return tuple(self._messages)

    def _think(self, item: ReasoningItem) -> None:
        if self._said or self._calls:
            self._flush()
        self._reasoning += [part.text for part in item.content or item.summary]

    def _say(self, where: str, item: MessageItem) -> None:
        message = _message("assistant", f"{where}.content", item.content)
        if message.parts:
            raise InvalidField(f"`{where}.content`: an image goes with role `user`.", param=f"{where}.content")
        # Content stands before calls in a turn.
        if self._said or self._calls:
            self._flush()
        self._said.append(message.content)

    def _result(self, where: str, item: CallOutputItem) -> None:
        if item.call_id not in self._call_ids:
            param = f"{where}.call_id"
            raise InvalidField(f"`{param}`: no `function_call` before it has this `call_id`.", param=param)
        message = _message("tool", f"{where}.output", item.output)
        self._messages.append(Message("tool", message.content, tool_call_id=item.call_id, parts=message.parts))

    def _flush(self) -> None:
        if self._said or self._calls:
            reasoning = "\n".join(self._reasoning) or None
            content = "".join(self._said)
            self._messages.append(
                Message("assistant", content, tool_calls=tuple(self._calls), reasoning_content=reasoning)
            )
        self._reasoning, self._said, self._calls = [], [], []


def _message(role: str, where: str, content: str | Sequence[Part]) -> Message:
    if isinstance(content, str):
        return Message(role, content)
    parts = [_part(f"{where}[{index}]", part) for index, part in enumerate(content)]
    # Joined with a newline, as in a chat completion.
    text = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    has_image = any(isinstance(part, ImagePart) for part in parts)
    return Message(role, text, parts=tuple(parts) if has_image else ())


def _part(where: str, part: Part) -> TextPart | ImagePart:
    if part.type in (*_TEXTS, "input_image", "refusal"):
        for name, types in _OWN.items():
            if part.type not in types and getattr(part, name) is not None:
                raise InvalidField(
                    f"`{where}.{name}` does not belong to a part of type `{part.type}`.", param=f"{where}.{name}"
                )
    match part.type:
        case "input_text" | "output_text" | "text":
            return TextPart(_required(where, "text", part.text))
        case "refusal":
            return TextPart(_required(where, "refusal", part.refusal))
        case "input_image":
            with told_as_response():
                return ImagePart(read_image_url(where, _required(where, "image_url", part.image_url)))
        case _:
            raise unsupported(f"{where}.type", f"Content of type `{part.type[:60]}`")


def _required(where: str, name: str, value: str | None) -> str:
    if value is None:
        raise InvalidField(f"`{where}.{name}` is required.", param=f"{where}.{name}")
    return value
