"""What agents receive: the encoded request (`payload:<id>`) and the control channel.

Payloads are MessagePack maps, so that an older agent skips fields it does not know. Control messages
are MessagePack arrays `[tag, ...]`, because Lua scripts write them too (`cmsgpack`).
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

DEFAULT_TEMPERATURE = 0.8


class ToolCall(Struct, frozen=True):
    """A call that an assistant's turn made; `arguments` is the JSON text of an object."""

    id: str
    name: str
    arguments: str


class TextPart(Struct, frozen=True, tag="text"):
    text: str


class ImagePart(Struct, frozen=True, tag="image"):
    """The bytes of an image file."""

    data: bytes


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation, as the chat template sees it. `tool_call_id`, of a turn of the role `tool`, is the
    call whose result it is.

    `parts` is the content in the client's order when an image is among it; `content` then is its text alone."""

    role: str
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    parts: tuple[TextPart | ImagePart, ...] = ()


class Tool(Struct, frozen=True, omit_defaults=True):
    """A function that the model may call; `parameters` is the JSON text of a schema, whose values are objects."""

    name: str
    parameters: str
    description: str | None = None


ToolChoice = Literal["auto", "none", "required"]


class Sampling(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Sampling parameters of one request; defaults are those of Paddler 4.1 where it has the field.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 and `min_p` 0 switch that sampler off.
    `penalty_last_n` is the number of recent tokens the penalties look at; -1 is the whole context.
    `seed` is always set by the balancer, so that a hand-over continues the same random stream: token
    number `n` of the output is drawn with a generator seeded by `(seed, n)`.

    The rest are llama.cpp's, off by default; `docs/sampling.md` says what each does. `logit_bias` adds to the logits of
    tokens, named by id or by text (of which every token counts); -100 or less bans them.
    """

    temperature: float = DEFAULT_TEMPERATURE
    top_k: int = 80
    top_p: float = 0.8
    min_p: float = 0.05
    penalty_last_n: int = -1
    penalty_repeat: float = 1.1
    penalty_frequency: float = 0.0
    penalty_presence: float = 0.8
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    logit_bias: tuple[tuple[int | str, float], ...] = ()
    ignore_eos: bool = False
    min_keep: int = 0
    typical_p: float = 1.0
    top_n_sigma: float = -1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1


class Generate(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="generate"):
    """Generate text from a conversation (`messages`) or a raw prompt, as text (`prompt`) or as tokens (`prompt_ids`, to
    which none are added); exactly one is set. With `suffix` the text between `prompt` and it, for models that can.

    `max_tokens` None means up to the context's end. `stop` holds strings that end the output and are not
    part of it. `grammar`, in GBNF with the rule `root`, is what the whole output has to be, or begin when it is cut
    by `max_tokens`. Requests of different `cache_scope` never share a cached prefix: the tenant, or empty when the
    operator lets tenants share. `logprobs` asks for log probabilities, with so many alternatives for each token.

    `tool_choice`: whether `tools` may be called, must be, or are not even mentioned; with `tool_name` it is that one.
    `template_kwargs` is the JSON text of an object of variables for the chat template, or empty. Where the template has
    the model think, `grammar` is about what comes behind that. `beginning` is what the answer to `messages` has begun
    with: it ends the prompt, and is no part of the output. `enable_thinking` is told to the template whether it looks
    at it or not; None leaves it to the template. `traceparent` is the W3C trace context that the work belongs to, or
    empty. `schema` is the JSON text of the schema that `grammar` was made of, empty if it was made of none: for engines
    that take schemas and no grammars.
    """

    messages: tuple[Message, ...] | None = None
    prompt: str | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    sampling: Sampling = Sampling()
    add_generation_prompt: bool = True
    cache_scope: str = ""
    grammar: str | None = None
    logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    tool_name: str | None = None
    parallel_tool_calls: bool = True
    template_kwargs: str = ""
    prompt_ids: tuple[int, ...] | None = None
    suffix: str | None = None
    beginning: str = ""
    enable_thinking: bool | None = None
    traceparent: str = ""
    schema: str = ""

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """Those that the model hears of."""
        return () if self.tool_choice == "none" else self.tools


Normalization = Literal["l2", "none", "rms_norm"]
DEFAULT_NORMALIZATION: Normalization = "l2"
DEFAULT_RMS_EPSILON = 1e-6


class Embed(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="embed"):
    """Embed each of `inputs`, in order.

    `normalization`: `l2` divides a vector by its length, `rms_norm` by the root of its mean square plus `rms_epsilon`.
    `dimensions` None means as many as the model has; fewer are the first ones, normalised after that. `first` is the
    place of the first input among those of the client, who sent them in several requests of the queue: errors name
    `input[i]` as it counts them. `is_single`: it sent one text and no list.
    """

    inputs: tuple[str, ...]
    normalization: Normalization = DEFAULT_NORMALIZATION
    rms_epsilon: float = DEFAULT_RMS_EPSILON
    dimensions: int | None = None
    first: int = 0
    is_single: bool = False
    traceparent: str = ""

    def name_of(self, index: int) -> str:
        """What the client calls the input that is number `index` here."""
        return "input" if self.is_single else f"input[{self.first + index}]"


class Rerank(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="rerank"):
    """Tell how well each of `documents` answers `query`: a score each, in order, a vector of one number.

    `first` is the place of the first document among those of the client, as in `Embed`.
    """

    query: str
    documents: tuple[str, ...]
    first: int = 0
    traceparent: str = ""

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.documents

    def name_of(self, index: int) -> str:
        """What the client calls the document that is number `index` here."""
        return f"documents[{self.first + index}]"


Encode = Embed | Rerank
"""What an encoder does: a vector for each of the inputs."""


class Tokenize(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="tokenize"):
    """Ask for the tokens of `text`.

    `adds_special`: with those that the model wants at beginning and end. `has_control`: control tokens written in the
    text count as such. `with_pieces`: with the bytes of each token.
    """

    text: str
    adds_special: bool = False
    has_control: bool = True
    with_pieces: bool = False


class Detokenize(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="detokenize"):
    """Ask for the text of tokens, control tokens written out."""

    tokens: tuple[int, ...]


class ApplyTemplate(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="apply_template"):
    """Ask for the prompt that the model's chat template makes of a request, as text."""

    request: Generate


class CountTokens(Struct, frozen=True, omit_defaults=True, kw_only=True, tag="count_tokens"):
    """Ask how many tokens the prompt of a request has: `prompt_tokens` of its usage, if it were sent. `with_tokens`:
    not how many, but which, as those of a text; without images."""

    request: Generate
    with_tokens: bool = False


Question = Tokenize | Detokenize | ApplyTemplate | CountTokens
"""About texts: answered from vocabulary and template, without computing anything (`wire.answers`)."""

Payload = Generate | Embed | Rerank | Question

Ability = Literal["generate", "embed", "rerank", "tokenize", "see"]
"""What an agent can do: a kind of payload, or of a `Question` (`tokenize`), or read images (`see`, which one that is in
front of another server does not know of). Agents that publish none are older, and can do all there was before
questions."""


def ability_for(payload: Payload) -> Ability:
    """What an agent must be able to do for it."""
    match payload:
        case Generate():
            return "generate"
        case Embed():
            return "embed"
        case Rerank():
            return "rerank"
        case Tokenize() | Detokenize() | ApplyTemplate() | CountTokens():
            return "tokenize"


class Poke(Struct, frozen=True, array_like=True, tag="poke"):
    """Something is waiting that may be stolen after so many ms (0: now)."""

    after_ms: int = 0


class CancelRequest(Struct, frozen=True, array_like=True, tag="cancel"):
    """Stop this request within one step; the state in `request:<id>` says why."""

    request_id: str


AskedOfAgent = Literal["model_metadata", "chat_template_override"]


class Ask(Struct, frozen=True, array_like=True, tag="ask"):
    """An operator wants to know something of this agent: its JSON goes to the list of this question, for a while."""

    question_id: str
    what: AskedOfAgent


class OperatorOrder(Struct, frozen=True, array_like=True, tag="order"):
    """What an operator asked of this agent: `drain`, `undrain` or `remove`. What bars it is in Redis already; `renew`
    says `remove` too."""

    what: str


class TryTemplate(Struct, frozen=True, array_like=True, tag="try_template"):
    """An operator wants to see the prompt that a chat template makes of a request; `template` None: the one that the
    agent uses. A `wire.trials.TemplateTrial` goes to the list of this question, for a while."""

    question_id: str
    request: Generate
    template: str | None = None


Control = Poke | CancelRequest | Ask | OperatorOrder | TryTemplate

_payload_encoder = msgspec.msgpack.Encoder()
_payload_decoder = msgspec.msgpack.Decoder(Payload)
_control_encoder = msgspec.msgpack.Encoder()
_control_decoder = msgspec.msgpack.Decoder(Control)


def encode_payload(payload: Payload) -> bytes:
    return _payload_encoder.encode(payload)


def decode_payload(data: bytes) -> Payload:
    """Raises `msgspec.MsgspecError` for bytes that are no payload."""
    return _payload_decoder.decode(data)


def encode_control(message: Control) -> bytes:
    return _control_encoder.encode(message)


def decode_control(data: bytes) -> Control:
    return _control_decoder.decode(data)
