"""A process that gives away blocks: `lender_process.py FOLDER SECRET`, files by the names of blocks. Prints its URL."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from paddler.clock import SystemClock
from paddler.settings import Address
from workers.agent.tiers import serving
from workers.agent.tiers.passes import Passes
from workers.agent.tiers.serving import BlockApp, BlockServer

serving.BODY_S = 2.0


async def main(folder: Path, secret: bytes) -> None:
    clock = SystemClock()
    app = BlockApp(Passes(secret), clock, clock.wall)

    def lend(name: bytes) -> bytes | None:
        path = folder / name.hex()
        return path.read_bytes() if path.exists() else None

    app.lend = lend
    server = BlockServer(app, Address("127.0.0.1", 0))
    app.url = f"http://127.0.0.1:{server.port}"
    server.start()
    print(app.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), bytes.fromhex(sys.argv[2])))
