"""A request's stream in the protocol that it was submitted in, from where it is followed on."""

from __future__ import annotations

from api.anthropic.label import MessageLabel
from api.anthropic.stream import message_stream
from api.exchange import Rendering
from api.native.events import NativeEvents
from api.native.label import NativeLabel
from api.openai.label import label_of
from api.openai.routes import render_stream
from paddler.jobs.gateway import Reply


def render_any(reply: Reply, *, item_timeout_ms: int) -> Rendering:
    """Raises `InvalidField` for what has no stream."""
    label = label_of(reply)
    if isinstance(label, MessageLabel):
        return message_stream(reply, label)
    if isinstance(label, NativeLabel):
        return NativeEvents(reply, label, item_timeout_ms=item_timeout_ms)
    return render_stream(reply)
