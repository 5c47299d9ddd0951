"""What clients of Paddler 4 send, over HTTP and over the inference socket.

Every field without a default is required, as at Paddler 4.1.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct, field

from api.openai.schema import MAX_MESSAGES
from api.openai.tool_schema import MAX_DESCRIPTION, MAX_TOOLS

MAX_DOCUMENTS = 65_536
"""Of one batch of embeddings."""
MAX_ID = 256
"""Characters of what a client calls a request or a document: it comes back with every token."""

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID)]
Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]


class ImageUrl(Struct, forbid_unknown_fields=True):
    url: str


class TextContent(Struct, forbid_unknown_fields=True, tag_field="type", tag="text"):
    text: str


class ImageContent(Struct, forbid_unknown_fields=True, tag_field="type", tag="image_url"):
    image_url: ImageUrl


class ConversationMessage(Struct, forbid_unknown_fields=True):
    """`role` is whatever the model's chat template knows."""

    role: str
    content: str | list[TextContent | ImageContent]


class GbnfGrammar(Struct, forbid_unknown_fields=True, tag_field="type", tag="gbnf"):
    """`root` is the rule that the output has to be."""

    grammar: str
    root: str


class JsonSchemaGrammar(Struct, forbid_unknown_fields=True, tag_field="type", tag="json_schema"):
    """`schema` is the text of one."""

    schema: str


Grammar = GbnfGrammar | JsonSchemaGrammar


class NativeFunction(Struct, forbid_unknown_fields=True):
    """`parameters` are bytes until it is known how many there are of all tools."""

    name: str
    description: Annotated[str, Meta(max_length=MAX_DESCRIPTION)]
    parameters: Raw = field(default_factory=lambda: Raw(b"null"))


class NativeTool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: NativeFunction


class ConversationParams(Struct, forbid_unknown_fields=True, kw_only=True):
    """`ContinueFromConversationHistory`. A negative `max_tokens` stops at once."""

    add_generation_prompt: bool
    conversation_history: Annotated[list[ConversationMessage], Meta(min_length=1, max_length=MAX_MESSAGES)]
    enable_thinking: bool
    max_tokens: Int32
    grammar: Grammar | None = None
    parse_tool_calls: bool = False
    tools: Annotated[list[NativeTool], Meta(max_length=MAX_TOOLS)] = []


class RawPromptParams(Struct, forbid_unknown_fields=True, kw_only=True):
    """`ContinueFromRawPrompt`."""

    max_tokens: Int32
    raw_prompt: Annotated[str, Meta(min_length=1)]
    grammar: Grammar | None = None


class Document(Struct, forbid_unknown_fields=True):
    """`id` comes back with its embedding."""

    id: Annotated[str, Meta(max_length=MAX_ID)]
    content: Annotated[str, Meta(min_length=1)]


class RmsNorm(Struct, forbid_unknown_fields=True):
    epsilon: Annotated[float, Meta(ge=0, le=1)]


class RmsNormMethod(Struct, forbid_unknown_fields=True):
    RmsNorm: RmsNorm


class EmbeddingParams(Struct, forbid_unknown_fields=True, kw_only=True):
    """`GenerateEmbeddingBatch`."""

    input_batch: Annotated[list[Document], Meta(min_length=1, max_length=MAX_DOCUMENTS)]
    normalization_method: Literal["L2", "None"] | RmsNormMethod


class Methods(Struct, forbid_unknown_fields=True):
    """Exactly one of them; empty bytes are none."""

    ContinueFromConversationHistory: Raw = Raw(b"")
    ContinueFromRawPrompt: Raw = Raw(b"")


class RequestMessage(Struct, forbid_unknown_fields=True):
    id: Id
    request: Methods


class NotificationMessage(Struct, forbid_unknown_fields=True):
    """Nothing more is to be said about the request of this id."""

    StopRespondingTo: Annotated[str, Meta(max_length=MAX_ID)]


class SocketMessage(Struct, forbid_unknown_fields=True):
    """One message of a client on the inference socket; exactly one of the three."""

    Request: RequestMessage | None = None
    Notification: NotificationMessage | None = None
    Error: object = None


class NamedRequest(Struct):
    id: Id


class Named(Struct):
    """What of a message that is wrong tells whose it is."""

    Request: NamedRequest
