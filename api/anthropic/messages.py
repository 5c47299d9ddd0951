"""The conversation of a request, as the wire has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from msgspec.structs import replace

from api.anthropic.blocks import (
    Base64Source,
    Block,
    FileSource,
    ImageBlock,
    MessagePart,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from api.images import read_base64
from api.validation import unsupported
from paddler.errors import InvalidField
from paddler.wire.agent import ImagePart, Message, TextPart, ToolCall

Parts = tuple[TextPart | ImagePart, ...]
B = TypeVar("B", bound=Block)

ERROR = "Error: "
"""Before the result of a call that has failed: templates have no other place for that."""

_KINDS = {
    TextBlock: "text",
    ImageBlock: "image",
    ToolUseBlock: "tool_use",
    ToolResultBlock: "tool_result",
    ThinkingBlock: "thinking",
}


class Conversation:
    """Built turn by turn: what one role says in several messages is one turn. `beginning` is the last of them, if that
    is an answer to go on with. `images` are the client's names of the images, in their order."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.beginning = ""
        self.images: list[str] = []
        self._calls: set[str] = set()

    def read(self, system: str | list[TextBlock] | None, messages: Sequence[MessagePart]) -> None:
        """Raises `InvalidField`, also for the result of a call that no earlier message has made. A call without a
        result is left to the model."""
        if system:
            self.messages.append(Message("system", _text("system", system)))
        for index, message in enumerate(messages):
            where = f"messages[{index}].content"
            match message.role:
                case "user":
                    self._user(where, message.content)
                case "assistant":
                    self._assistant(where, message.content)
                case "system":
                    self._add(Message("system", _text(where, message.content)))
        if messages[-1].role == "assistant":
            self._begin()

    def _begin(self) -> None:
        begun = self.messages.pop()
        if begun.tool_calls or begun.reasoning_content or not begun.content:
            raise InvalidField(
                "`messages`: a last message of the assistant is what the answer begins with, and must be text alone.",
                param="messages",
            )
        if all(message.role == "system" for message in self.messages):
            raise InvalidField("`messages` must have one of the user.", param="messages")
        self.beginning = begun.content

    def _add(self, turn: Message) -> None:
        last = self.messages[-1] if self.messages else None
        if last is not None and last.role == turn.role != "tool":
            self.messages[-1] = _joined(last, turn)
        else:
            self.messages.append(turn)

    def _user(self, where: str, content: str | list[Block]) -> None:
        """Results of calls, each a turn of its own, and then what the user says."""
        if isinstance(content, str):
            self._add(Message("user", content))
            return
        if not content:
            raise InvalidField(f"`{where}` must be a string or a list of at least one block.", param=where)
        parts: list[TextPart | ImagePart] = []
        for at, block in _placed(where, content):
            if isinstance(block, ToolResultBlock):
                if parts:
                    raise InvalidField(f"`{at}`: results of tools come before all else in a message.", param=at)
                self.messages.append(self._result(at, block))
            elif isinstance(block, TextBlock | ImageBlock):
                parts.append(self._part(at, block))
            else:
                raise _misplaced(at, block, "user")
        if parts:
            self._add(_message("user", tuple(parts)))

    def _result(self, where: str, block: ToolResultBlock) -> Message:
        if block.tool_use_id not in self._calls:
            param = f"{where}.tool_use_id"
            raise InvalidField(f"`{param}`: no `tool_use` of an earlier message has this id.", param=param)
        content = [TextBlock(block.content)] if isinstance(block.content, str) else block.content or []
        parts = tuple(self._part(at, one) for at, one in _placed(f"{where}.content", content))
        if block.is_error:
            parts = _as_error(parts)
        return replace(_message("tool", parts), tool_call_id=block.tool_use_id)

    def _part(self, where: str, block: TextBlock | ImageBlock) -> TextPart | ImagePart:
        if isinstance(block, TextBlock):
            return TextPart(block.text)
        self.images.append(where)
        return ImagePart(_image(where, block.source))

    def _assistant(self, where: str, content: str | list[Block]) -> None:
        """An answer that said nothing has no blocks."""
        if isinstance(content, str):
            self._add(Message("assistant", content))
            return
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        for at, block in _placed(where, content):
            match block:
                case TextBlock():
                    texts.append(block.text)
                case ThinkingBlock():
                    thoughts.append(block.thinking)
                case ToolUseBlock():
                    calls.append(ToolCall(block.id, block.name, _arguments(f"{at}.input", block)))
                case _:
                    raise _misplaced(at, block, "assistant")
        self._calls.update(call.id for call in calls)
        reasoning = "\n".join(filter(None, thoughts)) or None
        self._add(Message("assistant", "\n".join(texts), tool_calls=tuple(calls), reasoning_content=reasoning))


def _placed(where: str, blocks: Iterable[B]) -> Iterator[tuple[str, B]]:
    return ((f"{where}[{index}]", block) for index, block in enumerate(blocks))


def _message(role: str, parts: Parts) -> Message:
    """Its content is joined with a newline, as llama.cpp's server does for templates that take strings."""
    content = "\n".join(part.text for part in parts if isinstance(part, TextPart))
    has_image = any(isinstance(part, ImagePart) for part in parts)
    return Message(role, content, parts=parts if has_image else ())


def _joined(first: Message, second: Message) -> Message:
    parts: Parts = ()
    if first.parts or second.parts:
        parts = _parts_of(first) + _parts_of(second)
    thoughts = filter(None, (first.reasoning_content, second.reasoning_content))
    return Message(
        first.role,
        "\n".join(filter(None, (first.content, second.content))),
        tool_calls=first.tool_calls + second.tool_calls,
        reasoning_content="\n".join(thoughts) or None,
        parts=parts,
    )


def _parts_of(message: Message) -> Parts:
    return message.parts or ((TextPart(message.content),) if message.content else ())


def _as_error(parts: Parts) -> Parts:
    first = parts[0] if parts else TextPart("")
    if not isinstance(first, TextPart):
        return (TextPart(ERROR.rstrip()), *parts)
    return parts if first.text.startswith(ERROR) else (TextPart(ERROR + first.text), *parts[1:])


def _text(where: str, content: str | Sequence[Block]) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for at, block in _placed(where, content):
        if not isinstance(block, TextBlock):
            raise _misplaced(at, block, "system")
        texts.append(block.text)
    return "\n".join(texts)


def _misplaced(where: str, block: Block, role: str) -> InvalidField:
    return InvalidField(
        f"`{where}`: a block of type `{_KINDS[type(block)]}` does not belong into a message of the role `{role}`.",
        param=where,
    )


def _arguments(where: str, block: ToolUseBlock) -> str:
    text = bytes(block.input).decode()
    if not text.startswith("{"):
        raise InvalidField(f"`{where}` must be an object.", param=where)
    return text


def _image(where: str, source: Base64Source | UrlSource | FileSource) -> bytes:
    match source:
        case Base64Source():
            return read_base64(where, "the data of the image", source.data)
        case UrlSource():
            where = f"{where}.source"
            raise InvalidField(
                f"`{where}`: remote images are not fetched; send the image itself with a source of type `base64`, "
                "or have the balancer started with --allow-image-hosts.",
                param=where,
            )
        case FileSource():
            raise unsupported(f"{where}.source.type", "A source of type `file`")
