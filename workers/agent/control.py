"""Hearing one agent's control channel. What is missed is not lost: `renew` and `emit` say it too."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from paddler.store.client import Store
from paddler.wire.agent import Control, decode_control

QUIET_S = 1.0


async def hear(store: Store, channel_name: str) -> AsyncGenerator[Control | None]:
    """Messages as they come; None after each second of silence, so that the caller can look up."""
    client = store.dedicated()
    try:
        async with client.pubsub() as channel:
            await channel.subscribe(channel_name)
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=QUIET_S)
                yield decode_control(message["data"]) if message else None
    finally:
        await store.release(client)
