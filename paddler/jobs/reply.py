"""One request, seen from the balancer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

from paddler.errors import error_of
from paddler.jobs.mailbox import Mailbox
from paddler.wire.balancer import Failed, Finished, Opened, Tokens


class Reply:
    """Leaving the context before the terminal frame cancels the request, unless it is a background request or somebody
    else follows it too."""

    def __init__(self, mailbox: Mailbox, leave: Callable[[Mailbox], None]) -> None:
        self._mailbox = mailbox
        self._leave = leave
        self.request_id = mailbox.request_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(self._mailbox)

    async def __aiter__(self) -> AsyncIterator[Opened | Tokens | Finished]:
        """Every frame in order, ending after `Finished`. Raises a `PaddlerError` for any other end."""
        while True:
            await self._mailbox.wait()
            for frame in self._mailbox.take():
                match frame:
                    case Failed():
                        raise error_of(frame)
                    case Finished():
                        yield frame
                        return
                    case _:
                        yield frame

    async def wait_opened(self, timeout_s: float) -> bool:
        """True once the first frame is there, False after `timeout_s`; nothing is consumed.

        Raises a `PaddlerError` when the request has failed before its first token."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._mailbox.wait()
        except TimeoutError:
            return False
        failure = self._mailbox.first_failure()
        if failure is not None:
            raise error_of(failure)
        if not self._mailbox.is_opened and self._mailbox.error is not None:
            raise self._mailbox.error
        return True
