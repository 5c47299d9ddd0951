"""One request on this agent, from open to settle: its journal, and what of it Redis has confirmed."""

from __future__ import annotations

from math import inf

from paddler.engine import Done, Embedded, Event, Job, Preempted, Progress, Rejected, Retained, Working
from paddler.errors import EngineFailed, leaves
from paddler.store.results import Emission, Outcome
from paddler.vectors import NUMBER_SIZE
from paddler.wire.agent import Payload
from paddler.wire.balancer import (
    UNKNOWN_TOKEN,
    Answered,
    Failed,
    Finished,
    FinishReason,
    Opened,
    Prefilled,
    TextFormat,
    TokenLogprob,
    Tokens,
    Usage,
    Vectors,
    decode_frames,
    encode_frame,
)


class Running:
    """Frames are kept until the request is settled, because a crashed Redis may have forgotten its last second.

    One emission is in flight at a time and is repeated byte for byte until it is answered; tokens that arrive
    meanwhile become the next frame. That is what makes `emit` idempotent. While it `is_opening` nothing is sent: it has
    begun on the payload in its ticket, and Redis has not confirmed yet that it may.
    """

    def __init__(self, request_id: str, attempt: int, journal: bytes) -> None:
        self.request_id = request_id
        self.attempt = attempt
        self.is_opening = False
        self.sent_at = -inf
        self.is_dropped = False
        self.is_last = False
        self.is_preempted = False
        self.outcome: Outcome | None = None
        self.usage = Usage()
        self._journal = bytearray(journal)
        self._confirmed = len(journal)
        self._ids: list[int] = []
        self._text: list[str] = []
        self._mu: float | None = None
        self._logprobs: list[TokenLogprob] = []
        self._vectors: list[bytes] = []
        self._num_tokens: list[int] = []
        self._is_computing = False
        self._answer = b""
        self._prefilled: Prefilled | None = None
        self._final: Finished | Failed | None = None
        self._is_muted = False

    def job(self, payload: Payload, *, vocabulary: str = "", weights: str = "", peers: tuple[str, ...] = ()) -> Job:
        """The engine's job, continuing from what earlier attempts have emitted; `vocabulary` and `weights` are those of
        the engine, `peers` as `open` has told. Tokens of another vocabulary are worth no more than their text. Raises
        `EngineFailed` when vectors of another model are there: nobody could compare them with what this one would
        add."""
        ids: list[int] = []
        texts: list[str] = []
        format: TextFormat | None = None
        embedded: list[int] = []
        mu: float | None = None
        vector_size = 0
        is_foreign = are_others = is_mixed = False
        for frame in decode_frames(bytes(self._journal)):
            if isinstance(frame, Opened):
                is_foreign = "" not in (frame.vocabulary, vocabulary) and frame.vocabulary != vocabulary
                are_others = "" not in (frame.weights, weights) and frame.weights != weights
            elif isinstance(frame, Tokens):
                ids.extend(frame.ids)
                texts.append(frame.text)
                mu = mu if frame.mu is None else frame.mu
                # Of what another server has said, only the text is known.
                is_unknown = bool(vocabulary) and UNKNOWN_TOKEN in frame.ids
                is_mixed = is_mixed or is_unknown or (is_foreign and bool(frame.ids))
            elif isinstance(frame, Prefilled):
                format = format or frame.format
            elif isinstance(frame, Vectors):
                if are_others and frame.vectors:
                    raise EngineFailed(
                        "the model was changed while this was computed, and vectors of two models do not go together: "
                        "send it again"
                    )
                embedded.extend(frame.num_tokens)
                vector_size = max(map(len, frame.vectors), default=0) // NUMBER_SIZE or vector_size
        return Job(
            request_id=self.request_id,
            payload=payload,
            resume_ids=() if is_mixed else tuple(ids),
            resume_text="".join(texts),
            embedded=tuple(embedded),
            resume_mu=None if is_mixed else mu,
            vector_size=vector_size,
            num_foreign=len(ids) if is_mixed else 0,
            resume_format=format,
            peers=peers,
        )

    @property
    def emitted_text(self) -> str:
        frames = decode_frames(bytes(self._journal))
        return "".join(frame.text for frame in frames if isinstance(frame, Tokens))

    @property
    def is_fresh(self) -> bool:
        """Nothing has come of it, in this attempt or an earlier one."""
        frames = decode_frames(bytes(self._journal))
        return not any(isinstance(one, Tokens) or (isinstance(one, Vectors) and one.vectors) for one in frames)

    @property
    def is_over(self) -> bool:
        """The engine is done with it."""
        return self.outcome is not None or self.is_preempted

    @property
    def is_confirmed(self) -> bool:
        """Redis has everything that was taken."""
        return self._confirmed == len(self._journal) and not self._ids and not self._text and not self._vectors

    def take_event(self, event: Event) -> None:
        match event:
            case Progress(ids=ids, text=text, mu=mu, logprobs=logprobs):
                if not self._is_muted:
                    self._ids.extend(ids)
                    self._text.append(text)
                    self._mu = mu
                    self._logprobs.extend(logprobs)
            case Embedded(vectors=vectors, num_tokens=num_tokens):
                if not self._is_muted:
                    self._vectors.extend(vectors)
                    self._num_tokens.extend(num_tokens)
            case Working():
                self._is_computing = not self._is_muted
            case Done(reason=reason, usage=usage, text=text, answer=answer, stop=stop):
                self.usage = usage
                if self._is_muted:
                    # Its end may have been under way when the cancel was heard; its last text is not in the journal.
                    reason, text, answer, stop = FinishReason.CANCELLED, "", b"", None
                self._text.append(text)
                self._answer = answer
                self._final = Finished(reason, usage, stop)
                self.outcome = Outcome.CANCELLED if reason is FinishReason.CANCELLED else Outcome.DONE
            case Rejected() | Preempted() if self._is_muted:
                self.end_cancelled()
            case Rejected(code=code, message=message, status=status, param=param, usage=usage):
                self.usage = usage
                retryable = code in leaves() and leaves()[code].retryable
                self._final = Failed(code, message, status, retryable, param)
                self.outcome = Outcome.FAILED
            case Preempted():
                self.is_preempted = True
            case Retained(num_tokens=num_tokens, num_cached=num_cached, format=format):
                if num_cached is not None:
                    self._prefilled = Prefilled(num_tokens, num_cached, format)

    def discard(self) -> None:
        """Forget what Redis has not confirmed, and whatever the engine still says: it would stand behind a gap."""
        self._is_muted = True
        del self._journal[self._confirmed :]
        self._ids.clear()
        self._text.clear()
        self._logprobs.clear()
        self._vectors.clear()
        self._num_tokens.clear()
        self._is_computing = False
        self._answer = b""
        self._final = None
        self.is_last = False

    def end_cancelled(self) -> None:
        """The request was cancelled: it ends so, whatever the engine made of it."""
        self.discard()
        self._final = Finished(FinishReason.CANCELLED, self.usage)
        self.outcome = Outcome.CANCELLED

    def fail(self, failure: Failed) -> None:
        self._final = failure
        self.outcome = Outcome.FAILED

    def emission(self) -> Emission | None:
        """What to send next: what is still in flight, or everything taken since; None when there is nothing.

        `is_last` afterwards: it holds the final frame and goes through settle."""
        if self._confirmed == len(self._journal):
            self._encode()
        if self._confirmed == len(self._journal):
            return None
        frames = bytes(self._journal[self._confirmed :])
        return Emission(self.request_id, self.attempt, self._confirmed, frames)

    def confirm(self, length: int) -> None:
        """Redis's journal has this many bytes. Fewer than were confirmed: it lost its tail, which is sent again."""
        self._confirmed = length

    def _encode(self) -> None:
        text = "".join(self._text)
        if self._ids or text:
            if self._prefilled is not None:
                self._journal += encode_frame(self._prefilled)
                self._prefilled = None
            self._journal += encode_frame(Tokens(tuple(self._ids), text, self._mu, tuple(self._logprobs)))
            self._ids.clear()
            self._text.clear()
            self._logprobs.clear()
        if self._vectors or self._is_computing:
            self._is_computing = False
            self._journal += encode_frame(Vectors(tuple(self._vectors), tuple(self._num_tokens)))
            self._vectors.clear()
            self._num_tokens.clear()
        if self._answer:
            self._journal += encode_frame(Answered(self._answer))
            self._answer = b""
        if self._final is not None:
            self._journal += encode_frame(self._final)
            self._final = None
            self.is_last = True
