"""Prompts with images: read and encoded beside the engine's thread, and told to the scheduler when they are ready.

Reading an image (decode, resize, cut into tiles) takes tens of milliseconds, encoding it up to seconds, and neither can
be interrupted. Two threads do it while the engine goes on with everybody else: a step only looks whether something has
become ready.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from paddler.errors import EngineFailed, ImageDecodingFailed, InvalidField
from paddler.images import ImageUnreadable, images_of, refuse_images
from paddler.payload import check_payload
from paddler.wire.agent import Generate, Message, TextPart
from workers.agent.background import Background
from workers.agent.identities import Identities, digest_of
from workers.agent.images import read_image
from workers.agent.llama import Model
from workers.agent.mtmd import ImageChunk, ImageError, Pixels, Projector, Rows
from workers.agent.pictures import Picture, Pictures
from workers.agent.prompt import PromptEncoder
from workers.agent.sequence import Sequence as JobSequence
from workers.agent.tokens import TokenArray

MAX_AHEAD = 2
"""Pictures of one prompt that are encoded or wait for their turn: the next one while one is computed."""
STOP_S = 1.0
"""How long an encoding under way is waited for at the end; one that takes longer keeps its projector."""


class Prompt(Struct, frozen=True):
    tokens: TokenArray
    pictures: Pictures = Pictures()


class Vision:
    """Prompts of one engine, with images if it has a projector. `fit` is the longest side of an image in pixels, and
    `max_whole` how many tokens an image may have that must be computed as a whole."""

    def __init__(self, encoder: PromptEncoder, projector: Projector | None, *, fit: int, max_whole: int) -> None:
        self._encoder = encoder
        self._projector = projector
        self._fit = fit
        self._max_whole = max_whole
        self._identities = Identities()
        self._reading: dict[int, Future[Prompt]] = {}
        self._encoding: list[Future[Rows]] = []
        if projector is not None:
            self._reader, self._painter = Background("images"), Background("projector")

    @property
    def can_see(self) -> bool:
        return self._projector is not None

    def read(self, key: int, payload: Generate) -> Prompt | None:
        """The prompt of the job with this sequence id, or number of a question. None: it is read, ask again. Raises
        `PaddlerError`."""
        reading = self._reading.get(key)
        if reading is None:
            check_payload(payload)
            projector = self._projector
            if projector is None:
                refuse_images(payload, "its agent was started without --multimodal-projection")
            images = list(images_of(payload))
            if projector is None or not images:
                return Prompt(self._encoder.encode(payload))
            text = self._encoder.render(with_markers(payload, projector.marker))
            if text.count(projector.marker) != len(images):
                raise InvalidField("the model's chat template does not take these images", param="messages")
            self._reading[key] = self._reader.submit(lambda: self._read(projector, text, images))
            return None
        if not reading.done():
            return None
        del self._reading[key]
        return reading.result()

    def forget(self, key: int) -> None:
        """The job is over before it was read."""
        reading = self._reading.pop(key, None)
        if reading is not None:
            reading.cancel()

    def look(self, sequences: Iterable[JobSequence]) -> list[tuple[int, EngineFailed]]:
        """Write into the `work` of each sequence what it may compute next; have encoded what it will need. Returns the
        sequences that cannot go on."""
        failed: list[tuple[int, EngineFailed]] = []
        for sequence in sequences:
            if not sequence.pictures or self._projector is None:
                continue
            work, pictures = sequence.work, sequence.pictures
            if work.is_admitted:
                pictures.forget(work.num_cached)
                for picture in pictures.upcoming(work.num_cached)[:MAX_AHEAD]:
                    self._encode(picture, self._projector)
            picture = pictures.at(work.num_cached)
            work.run_end = pictures.end_of_run(work.num_cached)
            work.is_image = picture is not None
            work.is_whole = picture is not None and not self._projector.is_causal
            work.is_waiting = picture is not None and not picture.is_ready
            if picture is not None and picture.rows is not None and picture.rows.done():
                error = picture.rows.exception()
                if error is not None:
                    failed.append((work.key, EngineFailed(f"the image cannot be computed: {error}")))
        self._encoding = [one for one in self._encoding if not one.done()]
        return failed

    def wait(self, timeout_s: float) -> None:
        """Until something is ready, if anything is being read or encoded."""
        pending: list[Future[Any]] = [*self._reading.values(), *self._encoding]
        if pending:
            wait(pending, timeout_s, FIRST_COMPLETED)

    def close(self) -> None:
        for future in [*self._reading.values(), *self._encoding]:
            future.cancel()
        if self._projector is None:
            return
        was_idle = self._reader.stop(STOP_S)
        if self._painter.stop(STOP_S) and was_idle:
            self._projector.close()
        else:
            self._projector.close.detach()  # it is still in use; the end of the process frees it

    def _encode(self, picture: Picture, projector: Projector) -> None:
        if picture.rows is None:
            chunk = picture.chunk
            picture.rows = self._painter.submit(lambda: projector.encode(chunk))
            self._encoding.append(picture.rows)

    def _read(self, projector: Projector, text: str, images: Sequence[tuple[str, bytes]]) -> Prompt:
        pixels = [self._pixels(name, data) for name, data in images]
        try:
            parts = projector.read(text, pixels)
        except ImageError as error:
            raise ImageDecodingFailed(f"the images cannot be used: {error}", param="messages") from error
        digests = [digest_of(one) for one in pixels]
        first = parts[0]
        head = self._encoder.missing_beginning(first if not isinstance(first, ImageChunk) else None)
        tokens: list[TokenArray] = [head]
        pictures: list[Picture] = []
        num_tokens, num_tiles = len(head), [0] * len(images)
        for part in parts:
            if isinstance(part, ImageChunk):
                self._check_size(part, projector, images[part.image][0])
                identity = self._identities.of(digests[part.image], num_tiles[part.image])
                num_tiles[part.image] += 1
                pictures.append(Picture(part, num_tokens, num_tokens + part.num_tokens))
                part = np.full(part.num_tokens, identity, np.int32)
            tokens.append(part)
            num_tokens += len(part)
        return Prompt(self._encoder.checked(np.concatenate(tokens), "messages"), Pictures(pictures))

    def _pixels(self, name: str, data: bytes) -> Pixels:
        try:
            return read_image(data, self._fit)
        except ImageUnreadable as error:
            raise ImageDecodingFailed(f"`{name}`: the image cannot be used: {error}.", param=name) from error

    def _check_size(self, chunk: ImageChunk, projector: Projector, name: str) -> None:
        if not projector.is_causal and chunk.num_tokens > self._max_whole:
            raise InvalidField(
                f"`{name}`: the image has {chunk.num_tokens} tokens, which this model reads as a whole, but its agent "
                f"computes at most {self._max_whole} at once: send a smaller one.",
                param=name,
            )


def open_projector(path: str | None, model: Model, *, num_threads: int, uses_gpu: bool) -> Projector | None:
    """Raises `ModelError`."""
    return None if path is None else Projector(Path(path), model, num_threads=num_threads, uses_gpu=uses_gpu)


def with_markers(payload: Generate, marker: str) -> Generate:
    """The request as text, with the marker in place of each image."""
    return replace(payload, messages=tuple(_with_markers(one, marker) for one in payload.messages or ()))


def _with_markers(message: Message, marker: str) -> Message:
    """Texts that follow each other are on lines of their own, as in messages of text alone; an image stands where it
    is, as llama.cpp's server has it."""
    if not message.parts:
        return message
    text, is_after_text = "", False
    for part in message.parts:
        is_text = isinstance(part, TextPart)
        text += ("\n" if is_text and is_after_text else "") + (part.text if isinstance(part, TextPart) else marker)
        is_after_text = is_text
    return replace(message, content=text, parts=())
