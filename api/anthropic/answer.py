"""What the answers of Anthropic's routes have that others have not: its header for the request's id, its words for
errors."""

from __future__ import annotations

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from api.anthropic.words import ImageNames, own_words
from paddler.errors import PaddlerError


class MessagesAnswer:
    """Another answer, with both. `images` are the client's names for them."""

    def __init__(self, answer: ASGIApp, images: ImageNames = ()) -> None:
        self._answer = answer
        self._images = images

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                ids = [(b"request-id", value) for name, value in headers if name == b"x-request-id"]
                message["headers"] = [*headers, *ids]
            await send(message)

        try:
            await self._answer(scope, receive, send_with_id)
        except PaddlerError as error:
            raise own_words(error, self._images) from error
