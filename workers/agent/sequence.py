"""One job of the llama engine: its tokens, and the state that turns logits into text."""

from __future__ import annotations

import numpy as np

from paddler.detokenizer import Detokenizer
from paddler.engine import Done, Job, Progress, Retained
from paddler.errors import EngineFailed
from paddler.wire.agent import Generate
from paddler.wire.balancer import FinishReason, TokenLogprob, Usage
from workers.agent.chat_form import Form
from workers.agent.context import Context
from workers.agent.grammar import Constraint
from workers.agent.llama import LogitArray, Model
from workers.agent.logprobs import token_logprob
from workers.agent.pictures import Picture, Pictures
from workers.agent.retelling import retold, said_by
from workers.agent.sampling import Sampler
from workers.agent.scheduler import Work
from workers.agent.shifting import max_output, num_discarded, window
from workers.agent.tokens import TokenArray


class Sequence:
    """Prompt and output tokens of a job, `work` for the scheduler, sampler and detokeniser.

    Made with the tokens of an earlier attempt it is in the state that attempt had after the last of them;
    `finished` then already says so when they complete the output. `max_tokens` bounds prompt and output, unless the job
    asks for more and `num_kept` is given: then the first `num_kept` tokens stay and the older half of the rest goes
    whenever the context is full (`shifting.py`). `pictures` are those in the prompt.
    """

    def __init__(
        self,
        job: Job,
        payload: Generate,
        form: Form,
        key: int,
        prompt: TokenArray,
        model: Model,
        *,
        max_tokens: int,
        num_kept: int | None = None,
        pictures: Pictures,
    ) -> None:
        if not all(0 <= token < model.vocab_size for token in job.resume_ids):
            raise EngineFailed("the request was begun by an agent with another model: its tokens are unknown here")
        said, num_had = np.array(job.resume_ids, np.int32), job.resume_text_length
        if job.num_foreign:
            said = retold(job.resume_text, model, form.pieces)
            num_had = len(said_by(said, form.pieces).decode("utf-8", "replace"))
        earlier: list[int] = said.tolist()
        self.job = job
        self._payload = payload
        self.num_prompt = len(prompt)
        self.pictures = pictures
        self._model = model
        self._max_tokens = max_tokens
        self._num_kept = num_kept
        # Another vocabulary took more or fewer tokens for the same text; a client counts those that were sampled.
        num_more = len(said) - job.num_resumed
        self._max_output = max_tokens - self.num_prompt - num_more
        if payload.max_tokens is not None:
            most = self._max_output if num_kept is None else max_output(payload.max_tokens, max_tokens)
            self._max_output = min(most, payload.max_tokens)
        self._num_output = job.num_resumed
        tokens = np.concatenate([prompt, said])
        self.num_gone = 0
        """Tokens that have left the context."""
        if num_kept is not None:
            tokens, self.num_gone = window(tokens, self.num_prompt, num_kept, max_tokens)
        most_tokens = min(self.num_prompt + self._max_output + num_more, max_tokens)
        self._tokens = np.empty(max(most_tokens, len(tokens)), np.int32)
        self._tokens[: len(tokens)] = tokens
        self.num_reused = 0
        """How many tokens were in the KV cache when it was admitted."""
        self.is_prefilled = False
        self.work = Work(key, num_total=len(tokens), num_prompt=self._num_prompt_left, gives_way=job.is_pinned)
        self._format = form.format
        self._pieces = form.pieces
        constraint: Constraint | None = None
        if form.grammar is not None:
            constraint = Constraint(form.grammar.gbnf, model, form.grammar.root, form.pieces)
        text = prompt[prompt >= 0] if pictures else prompt
        self._sampler = Sampler(
            payload.sampling, model, prompt=text, max_tokens=max_tokens, mu=job.resume_mu, constraint=constraint
        )
        self._sampler.accept(earlier)
        self._detokenizer = Detokenizer(payload.stop, skip=num_had)
        self._unsent = "".join(self._detokenizer.push(form.pieces[token]) for token in earlier)
        self.finished = self._reason_to_finish(earlier[-1] if earlier else None)

    @property
    def usage(self) -> Usage:
        return Usage(self.num_prompt, self._num_output, self._num_cached_prompt if self.is_prefilled else 0)

    @property
    def scope(self) -> str:
        """Sequences of different scopes share nothing."""
        return self._payload.cache_scope

    @property
    def tokens(self) -> TokenArray:
        """The buffer of all its tokens, prompt and output; the first `work.num_total` are there."""
        return self._tokens

    @property
    def num_original(self) -> int:
        """How many of its first tokens are those it began with, all of them before a shift: only these say what of its
        conversation is in the cache."""
        return self.work.num_total if self.num_gone == 0 or self._num_kept is None else self._num_kept

    @property
    def must_shift(self) -> bool:
        """Its context is full and it is to go on."""
        is_full = self.work.num_total >= self._max_tokens
        return self._num_kept is not None and self.finished is None and is_full

    def shift(self) -> tuple[int, int]:
        """Forget the older half behind the beginning. Returns how many tokens stay there, and how many go. The cells
        must follow; `tokens` is another buffer from now on."""
        assert self._num_kept is not None
        kept, gone = self._num_kept, num_discarded(self._num_kept, self._max_tokens)
        left = np.concatenate([self._tokens[:kept], self._tokens[kept + gone : self.work.num_total]])
        self._tokens = np.empty_like(self._tokens)
        self._tokens[: len(left)] = left
        self.num_gone += gone
        self.work.num_total -= gone
        self.work.num_prompt = self._num_prompt_left
        return kept, gone

    @property
    def _num_prompt_left(self) -> int:
        """Tokens of the prompt that are still in the context."""
        return max(self.num_prompt - self.num_gone, min(self._num_kept or 0, self.num_prompt))

    @property
    def _num_cached_prompt(self) -> int:
        return min(self.num_reused, self.num_prompt)

    @property
    def position(self) -> int:
        """Of the next token to compute."""
        return self.pictures.position(self.work.num_cached)

    @property
    def picture(self) -> Picture | None:
        """The one that the next token belongs to."""
        return self.pictures.at(self.work.num_cached)

    def pending(self, num_tokens: int) -> TokenArray:
        """The next tokens to compute."""
        return self._tokens[self.work.num_cached : self.work.num_cached + num_tokens]

    def prefilled(self) -> Retained:
        """Its prompt, and what an earlier attempt has said, is in the KV cache now."""
        self.is_prefilled = True
        num_total = self.work.num_total + self.num_gone
        return Retained(self.job.request_id, self.num_original, num_total, self._num_cached_prompt, self._format)

    def sample(self, context: Context, index: int, logits: LogitArray) -> Progress:
        """Draw and take the next output token; see `Sampler.draw`. Sets `finished` when it was the last."""
        num_top = self._payload.logprobs
        kept = None if num_top is None else logits.copy()
        token = self._sampler.draw(context, index, logits, self._num_output)
        self._sampler.accept((token,))
        self._tokens[self.work.num_total] = token
        self._num_output += 1
        self.work.num_total += 1
        text = self._unsent + self._detokenizer.push(self._pieces[token])
        self._unsent = ""
        self.finished = self._reason_to_finish(token)
        logprobs: tuple[TokenLogprob, ...] = ()
        if num_top is not None and kept is not None and token not in self._model.end_tokens:
            logprobs = (token_logprob(kept, token, min(num_top, self._model.vocab_size), self._model),)
        return Progress(self.job.request_id, (token,), text, self._sampler.mu, logprobs)

    def done(self, reason: FinishReason) -> Done:
        """The last event of the job; a cancelled one releases no more text."""
        text = self._unsent + self._detokenizer.flush() if reason is not FinishReason.CANCELLED else ""
        stop = self._detokenizer.stopped_by if reason is FinishReason.STOP else None
        return Done(self.job.request_id, reason, self.usage, text, stop=stop)

    def close(self) -> None:
        self._sampler.close()
        self.pictures.close()

    def _reason_to_finish(self, last: int | None) -> FinishReason | None:
        if self._detokenizer.is_stopped or last in self._model.end_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if self._num_output >= self._max_output else None
