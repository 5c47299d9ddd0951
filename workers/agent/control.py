"""Hearing one agent's control channel. What is missed is not lost: `renew` and `emit` say it too."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from paddler.logs import get_logger
from paddler.store.client import Store
from paddler.wire.agent import Control, decode_control

log = get_logger(__name__)

QUIET_S = 1.0


async def hear(store: Store, channel_name: str) -> AsyncGenerator[Control | None]:
    """Messages as they come; None after each second of silence, so that the caller can look up."""
    client = store.dedicated()
    try:
        async with client.pubsub() as channel:
            await channel.subscribe(channel_name)
            while True:
                message = await channel.get_message(ignore_subscribe_messages=True, timeout=QUIET_S)
                if message is None:
                    yield None
                    continue
                try:
                    control = decode_control(message["data"])
                except msgspec.MsgspecError as error:
                    # From a newer version, most likely: whoever speaks knows that an older one does not understand.
                    log.warning("skipped a control message that this version cannot read", error=str(error))
                else:
                    yield control
    finally:
        await store.release(client)
