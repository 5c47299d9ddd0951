"""Questions about texts, answered between two decodes: they need neither cells nor a sequence.

What is long goes to a thread beside the engine's, as llama.cpp takes a second for some texts of a megabyte; so do the
images of a prompt that is counted. A step only looks whether an answer has become ready.
"""

from __future__ import annotations

from concurrent.futures import Future, wait
from itertools import count

from msgspec import Struct

from paddler.clock import Clock
from paddler.engine import Done, Event, Job
from paddler.images import images_of
from paddler.payload import question_size
from paddler.wire.agent import CountTokens, Question
from paddler.wire.answers import Answer, Counted, encode_answer
from paddler.wire.balancer import FinishReason, Usage
from workers.agent.background import Background
from workers.agent.llama import Model
from workers.agent.rejecting import rejected
from workers.agent.signs import SignsOfLife
from workers.agent.templates import ChatTemplate
from workers.agent.texts import Texts
from workers.agent.vision import Vision

ANSWER_S = 0.05
"""Time of a step for answers; at least one is given."""
MAX_AT_ONCE = 16_384
"""Bytes of text that a step takes itself: 20 ms of the worst for one vocabulary of BPE."""
STOP_S = 1.0


class _Asked(Struct, eq=False):
    """`key` is what `Vision` knows it by: below 0, where no sequence is. `answer` is what the thread makes."""

    key: int
    job: Job
    question: Question
    answer: Future[Answer] | None = None


class Answerer:
    """The questions of one engine. `vision` None: there are no images."""

    def __init__(
        self, model: Model, template: ChatTemplate | None, clock: Clock, *, name: str, vision: Vision | None = None
    ) -> None:
        self._clock = clock
        self._vision = vision if vision is not None and vision.can_see else None
        self._texts = Texts(model, template, name=name, can_see=self._vision is not None)
        self._keys = count(1)
        self._asked: list[_Asked] = []
        self._cancelled: list[_Asked] = []
        self._signs = SignsOfLife()
        self._thread: Background | None = None

    def use(self, template: ChatTemplate | None) -> None:
        """Show prompts with this template from now on."""
        self._texts.use(template)

    @property
    def num_jobs(self) -> int:
        return len(self._asked)

    def start(self, job: Job, question: Question) -> None:
        self._asked.append(_Asked(-next(self._keys), job, question))

    def cancel(self, request_id: str) -> None:
        # Jobs, not requests: the same request may be started again before the next step.
        self._cancelled += [one for one in self._asked if one.job.request_id == request_id]

    def wait(self, timeout_s: float) -> None:
        """Until the thread has an answer, if it works on any."""
        if pending := [one.answer for one in self._asked if one.answer is not None]:
            wait(pending[:1], timeout_s)

    def close(self) -> None:
        for asked in self._asked:
            if asked.answer is not None:
                asked.answer.cancel()
        self._asked.clear()
        self._cancelled.clear()
        if self._thread is not None:
            self._thread.stop(STOP_S)

    def step(self) -> list[Event]:
        """As many answers as the time allows."""
        events: list[Event] = []
        for asked in self._cancelled:
            if asked in self._asked:
                self._forget(asked)
                events.append(Done(asked.job.request_id, FinishReason.CANCELLED, Usage()))
        self._cancelled.clear()
        deadline = self._clock.monotonic() + ANSWER_S
        for asked in list(self._asked):
            try:
                answer = self._answer(asked)
            except Exception as failure:
                self._asked.remove(asked)
                events.append(rejected(asked.job, failure))
            else:
                if answer is not None:
                    self._asked.remove(asked)
                    told = encode_answer(answer)
                    events.append(Done(asked.job.request_id, FinishReason.STOP, Usage(), answer=told))
            if self._clock.monotonic() >= deadline:
                break
        waiting = [asked.job.request_id for asked in self._asked]
        return events + self._signs.look(waiting, self._clock.monotonic())

    def _forget(self, asked: _Asked) -> None:
        self._asked.remove(asked)
        if asked.answer is not None:
            asked.answer.cancel()
        if self._vision is not None:
            self._vision.forget(asked.key)

    def _answer(self, asked: _Asked) -> Answer | None:
        """None: it is not ready. Raises `PaddlerError`."""
        question = asked.question
        if asked.answer is not None:
            return asked.answer.result() if asked.answer.done() else None
        if self._vision is not None and isinstance(question, CountTokens) and any(images_of(question.request)):
            prompt = self._vision.read(asked.key, question.request)
            return None if prompt is None else Counted(len(prompt.tokens))
        if question_size(question) <= MAX_AT_ONCE:
            return self._texts.answer(question)
        if self._thread is None:
            self._thread = Background("texts")
        asked.answer = self._thread.submit(lambda: self._texts.answer(question))
        return None
