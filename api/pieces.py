"""A large JSON body, made and sent piece by piece: a batch of embeddings may be 160 MiB and two seconds of computing,
which would stand in the way of every other stream of this balancer, and nobody has to hold it all at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from litestar.types import Receive, Scope, Send

from api.connection import Headers, Outgoing, run_while_connected
from paddler.clock import Clock

PIECE = 64 * 1024


class JsonAnswer:
    """Answers with 200 and the JSON that `chunks` are together; each chunk is made only when it is due."""

    def __init__(self, chunks: Iterable[bytes], clock: Clock) -> None:
        self._chunks = chunks
        self._clock = clock

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        out = Outgoing(send, self._clock)
        await run_while_connected(write_json(out, [], self._chunks, self._clock), receive, out, self._clock)


async def write_json(out: Outgoing, headers: Headers, chunks: Iterable[bytes], clock: Clock) -> None:
    """The whole answer, with a length if it is one piece. The event loop has a turn after each, and the next is made
    when the client has read enough of what is before it."""
    pieces = _pieces(chunks)
    piece, following = next(pieces), next(pieces, None)
    headers = [(b"content-type", b"application/json"), *headers]
    if following is None:
        headers.append((b"content-length", b"%d" % len(piece)))
    await out.start(200, headers)
    while following is not None:
        await out.write(piece)
        await clock.sleep(0)
        piece, following = following, next(pieces, None)
    await out.write(piece, last=True)


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """At least one, and none much smaller than `PIECE` but the last."""
    piece = bytearray()
    for chunk in chunks:
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
        piece += chunk
    yield bytes(piece)
