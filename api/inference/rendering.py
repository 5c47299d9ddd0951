"""A request's stream in the protocol that it was submitted in, from where it is followed on."""

from __future__ import annotations

from api.anthropic.label import MessageLabel
from api.anthropic.stream import message_stream
from api.exchange import Rendering
from api.openai.label import label_of
from api.openai.routes import render_stream
from paddler.jobs.gateway import Reply


def render_any(reply: Reply) -> Rendering:
    """Raises `InvalidField` for what has no stream."""
    label = label_of(reply)
    return message_stream(reply, label) if isinstance(label, MessageLabel) else render_stream(reply)
