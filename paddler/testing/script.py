"""One job of the scripted engine: what it will say, how far it is, and what its prompt tells the engine to do.

Word `n` is a function of the prompt, the seed (with temperature 0: of the prompt alone), `n` and whatever the request
says of sampling, so `whole` can tell what any stream must be, whatever happened to the agents on the way. Of sampling
are meant what they say: a ban in `logit_bias`, `ignore_eos`, and that mirostat has a state.
"""

from __future__ import annotations

import hashlib
import re

import msgspec
from msgspec import Struct, structs

from paddler.chat_formats.families import FALLBACK
from paddler.detokenizer import Detokenizer
from paddler.engine import Done, Job, Progress
from paddler.errors import ContextExceeded, EngineFailed, InvalidField
from paddler.payload import BAN
from paddler.wire.agent import DEFAULT_TEMPERATURE, Generate, Sampling
from paddler.wire.balancer import FinishReason, TextFormat, TokenLogprob, Usage

NUM_WORDS = 50_000
"""Tokens below are words, the 256 from here on are bytes."""

DEFAULT_TOKENS = 16
DEFAULT_CONTEXT = 8192


class Faults(Struct, frozen=True):
    """What the prompt asks to go wrong, at which number of tokens."""

    dies_at: int | None = None
    stall_s: float | None = None
    preempted_at: int | None = None
    hangs: bool = False


class Script:
    """One running job. Raises `PaddlerError` for one that cannot run."""

    def __init__(
        self,
        job: Job,
        payload: Generate,
        default_tokens: int = DEFAULT_TOKENS,
        context_size: int = DEFAULT_CONTEXT,
    ) -> None:
        if payload.grammar is not None:
            raise InvalidField("the scripted engine has no model that could follow a grammar", param="grammar")
        if payload.tool_choice == "required":
            raise InvalidField("the scripted engine has no model that could be made to call", param="tool_choice")
        self.job = job
        self.payload = payload
        if not all(0 <= token < NUM_WORDS + 256 for token in payload.prompt_ids or ()):
            raise InvalidField("`prompt` has a token that is none here", param="prompt")
        text = prompt_text(payload)
        param = "prompt" if payload.messages is None else "messages"
        if (found := re.search(r"\[\[tokens=(\d+)\]\]", text)) is not None:
            default_tokens = int(found[1])
        said = re.search(r"\[\[now=(.*?)\]\]", text, re.DOTALL) or re.search(r"\[\[say=(.*?)\]\]", text, re.DOTALL)
        self._said = [NUM_WORDS + byte for byte in said[1].encode()] if said is not None else None
        self._num_script = default_tokens if self._said is None else len(self._said)
        if "[[fail]]" in text:
            raise EngineFailed("the prompt says [[fail]]")
        self.faults = faults_of(text, is_resumed=job.num_resumed > 0)
        self.prompt_words = text.split()
        num_prompt = len(self.prompt_words)
        if num_prompt == 0:
            raise InvalidField("the prompt is empty", param=param)
        if num_prompt >= context_size:
            raise ContextExceeded(
                f"the prompt has {num_prompt} tokens, but the context holds {context_size}, the output included",
                param=param,
            )
        self._max_output = context_size - num_prompt
        if not all(0 <= token < NUM_WORDS + 256 for token in job.resume_ids):
            raise EngineFailed("the request was begun by an agent with another model: its tokens are unknown here")
        sampling = payload.sampling
        self._text = text
        self._source = f"{sampling.seed if sampling.temperature > 0 else ''}\0{text}".encode() + _unusual(sampling)
        self._banned = _banned(sampling)
        self._mu = 2 * sampling.mirostat_tau if job.resume_mu is None else job.resume_mu
        if sampling.ignore_eos:
            self._num_script = 1 + max(self._max_output, payload.max_tokens or 0)
        self.format = _format(payload, text)
        self._num_prefilled = 0
        self.num_cached = 0
        self._ids = retold(job.resume_text) if job.num_foreign else list(job.resume_ids)
        self._num_more = job.num_foreign - len(self._ids) if job.num_foreign else 0
        self._detokenizer = Detokenizer(payload.stop, skip=job.resume_text_length)
        self._unsent = "".join(self._detokenizer.push(piece_of(token)) for token in self._ids)
        self.finished = self._reason_to_finish()

    @property
    def usage(self) -> Usage:
        return Usage(len(self.prompt_words), self.num_output, self.num_cached)

    @property
    def num_output(self) -> int:
        """Tokens as they were sampled: what another vocabulary has said may have taken it more or fewer than us."""
        return len(self._ids) + self._num_more

    @property
    def is_prefilled(self) -> bool:
        return self._num_prefilled >= len(self.prompt_words)

    @property
    def words(self) -> list[str]:
        """The sequence so far as the next turn of its conversation will begin with it."""
        answer = b"".join(map(piece_of, self._ids)).decode("utf-8", "replace")
        is_turn = self.payload.messages is not None and not self.payload.beginning
        opening = "\nassistant: " if is_turn else ""
        return (self._text + opening + answer).split()

    def take_cached(self, num_tokens: int) -> None:
        """The first tokens of the prompt are in the cache; the last is computed in any case, as its output is
        needed."""
        self.num_cached = self._num_prefilled = min(num_tokens, len(self.prompt_words) - 1)

    def prefill(self, num_tokens: int) -> bool:
        """Prefill up to `num_tokens` (0: all); whether the prompt is done, so that the step gives a token."""
        self._num_prefilled += num_tokens or len(self.prompt_words)
        return self.is_prefilled

    def next(self) -> Progress:
        token = self._token(len(self._ids))
        self._ids.append(token)
        text = self._unsent + self._detokenizer.push(piece_of(token))
        self._unsent = ""
        self.finished = self._reason_to_finish()
        mu = None
        if self.payload.sampling.mirostat:
            mu = self._mu = self._mu + token % 7 - 3
        num_top = self.payload.logprobs
        logprobs = () if num_top is None else (_logprob(token, num_top),)
        return Progress(self.job.request_id, (token,), text, mu, logprobs)

    def done(self, reason: FinishReason) -> Done:
        text = self._unsent + self._detokenizer.flush() if reason is not FinishReason.CANCELLED else ""
        stop = self._detokenizer.stopped_by if reason is FinishReason.STOP else None
        return Done(self.job.request_id, reason, self.usage, text, stop=stop)

    def _reason_to_finish(self) -> FinishReason | None:
        if self._detokenizer.is_stopped or len(self._ids) >= self._num_script:
            return FinishReason.STOP
        most = self.payload.max_tokens
        is_long = len(self._ids) >= self._max_output or (most is not None and self.num_output >= most)
        return FinishReason.LENGTH if is_long else None

    def _token(self, n: int) -> int:
        if self._said is not None and n < len(self._said):
            return self._said[n]
        source = self._source + n.to_bytes(4, "big")
        if self.payload.sampling.mirostat:
            source += str(self._mu).encode()
        digest = hashlib.blake2b(source, digest_size=8).digest()
        token = int.from_bytes(digest, "big") % NUM_WORDS
        while token in self._banned:
            token = (token + 1) % NUM_WORDS
        return token


class Whole(Struct, frozen=True):
    """A job from beginning to end."""

    ids: tuple[int, ...]
    text: str
    reason: FinishReason


def whole(payload: Generate, *, default_tokens: int = DEFAULT_TOKENS, context_size: int = DEFAULT_CONTEXT) -> Whole:
    """What a scripted engine answers when nothing goes wrong."""
    script = Script(Job(request_id="whole", payload=payload), payload, default_tokens, context_size)
    ids: list[int] = []
    texts: list[str] = []
    while script.finished is None:
        progress = script.next()
        ids += progress.ids
        texts.append(progress.text)
    return Whole(tuple(ids), "".join(texts) + script.done(script.finished).text, script.finished)


def prompt_text(payload: Generate) -> str:
    if payload.prompt_ids is not None:
        return b"".join(map(piece_of, payload.prompt_ids)).decode("utf-8", "replace")
    if payload.prompt is not None:
        return payload.prompt if payload.suffix is None else f"{payload.prompt} {payload.suffix}"
    turns = [f"{message.role}: {message.content}" for message in payload.messages or ()]
    return "\n".join([*turns, f"assistant: {payload.beginning}"] if payload.beginning else turns)


def _format(payload: Generate, text: str) -> TextFormat | None:
    is_thinking = "[[think]]" in text
    if not payload.callable_tools and not is_thinking:
        return None
    return TextFormat(FALLBACK if payload.callable_tools else "", "think" if is_thinking else "", is_thinking)


def _logprob(token: int, num_top: int) -> TokenLogprob:
    """A function of the token; the alternatives are the tokens behind it."""
    best = -(token % 64) / 64
    top = tuple((piece_of(token + place), best - place) for place in range(min(num_top, NUM_WORDS + 256 - token)))
    return TokenLogprob(piece_of(token), best, top)


def _unusual(sampling: Sampling) -> bytes:
    """What a request asks of sampling beside temperature and seed; nothing for one that asks for nothing."""
    asked = structs.replace(sampling, temperature=DEFAULT_TEMPERATURE, seed=0)
    return b"" if asked == Sampling() else msgspec.msgpack.encode(asked)


def _banned(sampling: Sampling) -> frozenset[int]:
    """Raises `InvalidField` for tokens that there are not."""
    banned: set[int] = set()
    for entry, bias in sampling.logit_bias:
        if isinstance(entry, str) or entry >= NUM_WORDS + 256:
            raise InvalidField(f"logit_bias names {entry!r}, which is no token here", param="logit_bias")
        if bias <= BAN:
            banned.add(entry)
    return frozenset(banned)


def piece_of(token: int) -> bytes:
    """The bytes that a token gives to the text."""
    return f"w{token} ".encode() if token < NUM_WORDS else bytes([token - NUM_WORDS])


def retold(text: str) -> list[int]:
    """The tokens that give a text: what an engine of another vocabulary has said, in ours."""
    parts = re.findall(r"w(\d{1,4}|[1-4]\d{4}) |(.)", text, re.DOTALL)
    return [token for word, other in parts for token in ([int(word)] if word else _bytes_of(other))]


def _bytes_of(text: str) -> list[int]:
    return [NUM_WORDS + byte for byte in text.encode()]


def faults_of(text: str, *, is_resumed: bool) -> Faults:
    """What a text asks to go wrong; nothing with a job that goes on."""
    if is_resumed:
        return Faults()
    dies = re.search(r"\[\[die(?:=(\d+))?\]\]", text)
    dies_at = int(dies[1] or 0) if dies is not None else None
    stalls = re.search(r"\[\[stall=(\d+(?:\.\d+)?)\]\]", text)
    preempts = re.search(r"\[\[preempt=(\d+)\]\]", text)
    return Faults(
        dies_at=dies_at,
        stall_s=float(stalls[1]) if stalls is not None else None,
        preempted_at=int(preempts[1]) if preempts is not None else None,
        hangs="[[hang]]" in text,
    )
