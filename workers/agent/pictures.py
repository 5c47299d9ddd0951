"""Where the images of a prompt lie among its tokens, and at which positions. Pure, but for the rows it carries.

An image takes as many places among the tokens as cells of the KV cache. The ids there are negative and stand for its
identity (see `identities.py`), so that a prefix is found through it. Index and position are the same up to an image
whose model counts rows and columns: what is behind such an image is nearer.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from msgspec import Struct

from workers.agent.mtmd import ImageChunk, Rows


class Picture(Struct, eq=False):
    """A chunk of an image at the indices from `start` to `end`. `rows` is what its projector makes of it, None while
    nobody has asked for it."""

    chunk: ImageChunk
    start: int
    end: int
    rows: Future[Rows] | None = None

    @property
    def is_ready(self) -> bool:
        return self.rows is not None and self.rows.done()


class Pictures:
    """Those of one sequence, in order; they do not overlap."""

    def __init__(self, pictures: Sequence[Picture] = ()) -> None:
        self._pictures = tuple(pictures)

    def __bool__(self) -> bool:
        return bool(self._pictures)

    def at(self, index: int) -> Picture | None:
        """The one that the token at `index` belongs to."""
        return next((one for one in self._pictures if one.start <= index < one.end), None)

    def end_of_run(self, index: int) -> int | None:
        """Where the picture ends that `index` lies in, else where the next one begins; None when none follows."""
        ends = (one.end if one.start <= index else one.start for one in self._pictures if index < one.end)
        return next(ends, None)

    def upcoming(self, index: int) -> tuple[Picture, ...]:
        """Those that do not lie before `index` as a whole."""
        return tuple(one for one in self._pictures if index < one.end)

    def position(self, index: int) -> int:
        """Of the token at `index` in text; of one in a picture the position of the first that may be taken back with
        it: its own, or of a picture with rows and columns the picture's."""
        position = index
        for one in self._pictures:
            num_saved = one.end - one.start - one.chunk.num_positions
            if one.end <= index:
                position -= num_saved
            elif one.start < index and num_saved:
                position -= index - one.start
        return position

    def shareable(self, num_tokens: int) -> int:
        """How many of the first tokens another sequence may be given: a picture as a whole or not at all."""
        inside = self.at(num_tokens)
        return num_tokens if inside is None else inside.start

    def removable(self, num_tokens: int) -> int:
        """How many of the first tokens can be kept when all behind them are removed."""
        inside = self.at(num_tokens)
        is_grid = inside is not None and inside.end - inside.start != inside.chunk.num_positions
        return inside.start if inside is not None and is_grid else num_tokens

    def forget(self, num_tokens: int) -> None:
        """The first tokens are in the KV cache: the rows that were for them are not needed any more."""
        for one in self._pictures:
            if one.end <= num_tokens:
                one.rows = None

    def close(self) -> None:
        """Nobody waits for their rows."""
        for one in self._pictures:
            if one.rows is not None:
                one.rows.cancel()
