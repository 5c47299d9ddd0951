"""Log probabilities of a chat completion: those of the tokens that the client's text consists of."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable

from api.openai.objects import LikelyToken, LogprobsObject, SampledToken
from paddler.wire.balancer import TokenLogprob, Tokens

LEAST = -9999.0
"""What OpenAI says instead of minus infinity, which JSON has not."""


class LogprobStream:
    """Gives out tokens in their order, each when the text has all of its characters. So those of a stop string are
    never given out, as little as its text, and the end's token, which has no text, is not there at all."""

    def __init__(self, earlier: Iterable[Tokens] = ()) -> None:
        """`earlier` are the frames that the client has had."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: deque[tuple[TokenLogprob, int]] = deque()
        self._num_sampled = 0
        self._num_given = 0
        self._num_released = 0
        for frame in earlier:
            self.push(frame.text, frame.logprobs)

    def push(self, text: str, logprobs: Iterable[TokenLogprob]) -> list[SampledToken]:
        """The tokens that are complete with this text, as the client of a chat completion gets them."""
        return [_token_object(entry) for entry, _ in self.take(text, logprobs)]

    def take(self, text: str, logprobs: Iterable[TokenLogprob]) -> list[tuple[TokenLogprob, int]]:
        """The same tokens as they are, each with the character of the text at which it begins."""
        for entry in logprobs:
            self._num_sampled += len(self._decoder.decode(entry.piece))
            self._held.append((entry, self._num_sampled))
        self._num_released += len(text)
        complete: list[tuple[TokenLogprob, int]] = []
        while self._held and self._held[0][1] <= self._num_released:
            entry, end = self._held.popleft()
            complete.append((entry, self._num_given))
            self._num_given = end
        return complete


def logprobs_object(content: list[SampledToken]) -> LogprobsObject:
    return {"content": content, "refusal": None}


def _token_object(entry: TokenLogprob) -> SampledToken:
    top = [_one(piece, logprob) for piece, logprob in entry.top]
    return {**_one(entry.piece, entry.logprob), "top_logprobs": top}


def _one(piece: bytes, logprob: float) -> LikelyToken:
    return {"token": piece.decode("utf-8", "replace"), "logprob": max(logprob, LEAST), "bytes": list(piece)}
