"""Work in a thread that ends with it.

What computes with OpenMP must not stay behind: libgomp keeps the helpers of a thread that has asked for some as long
as that thread lives, idle or not, and once there are more of them than cores it hardly waits actively at barriers any
more. With a pool's thread, in which the model had been warmed up, one stream of SmolLM2 on two cores had 37 tokens/s;
without, 46 to 74.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_passing_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises. It goes on when this is cancelled, and does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)  # pyright: ignore[reportArgumentType]  # of a T that may be None

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # it is raised where it is waited for
            told: tuple[T | None, BaseException | None] = None, error
        else:
            told = result, None
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, *told)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name="passing", daemon=True).start()
    return await ended
