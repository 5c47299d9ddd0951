"""What conversations that begin alike have in common, in tokens. Pure.

A chat template may write a beginning otherwise when nothing follows, and a tokenizer may join the last of it with what
comes next. So some conversations that go on differently are looked at: what all of them begin with is certainly common.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from paddler.wire.agent import Generate, Message

ENDS = ("a", " 1", "\n\n?")
"""A letter, a space and line breaks are joined with what is before them, each by some tokenizers."""


def probes(content: Generate) -> tuple[Generate, ...]:
    """Requests that begin with it and go on in different ways."""
    if content.messages is None:
        prompt = content.prompt or ""
        return tuple(replace(content, prompt=prompt + end) for end in ENDS)
    messages = content.messages
    if messages[-1].role in ("user", "tool"):
        turns = (*messages, Message("assistant", "a"), Message("user", "1"))
        return content, replace(content, messages=turns)
    return tuple(replace(content, messages=(*messages, Message("user", end))) for end in ENDS)


def common(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens that all prompts begin with."""
    shortest, *others = sorted(prompts, key=len)
    num = next((at for at, token in enumerate(shortest) if any(one[at] != token for one in others)), len(shortest))
    return tuple(shortest[:num])


def begins_with(request: Generate, content: Generate) -> bool:
    """Whether a request begins as it was pinned."""
    if content.messages is None:
        return request.prompt is not None and request.prompt.startswith(content.prompt or "")
    is_alike = request.callable_tools == content.tools and request.messages is not None
    return is_alike and (request.messages or ())[: len(content.messages)] == content.messages
