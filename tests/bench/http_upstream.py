"""A plain ASGI stream of the bytes that a balancer would send: the floor of the HTTP benchmark, and the engine behind
the proxy that it is compared with.

It speaks as much of OpenAI's API as that takes: `[[tokens=N]]` in the prompt is how many chunks come, one each
`--step-ms`. It prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
from typing import Any

import uvicorn
import uvloop

TOKENS = re.compile(rb"\[\[tokens=(\d+)\]\]")
ID = "chatcmpl-default.AAAAAAAAAAAAAAAAAAAAAA"
HEAD = (
    f'data: {{"id":"{ID}","object":"chat.completion.chunk","created":1700000000,"model":"default","choices":'.encode()
)
ROLE = HEAD + b'[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}\n\n'
LAST = HEAD + b'[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
    (b"x-request-id", b"default.AAAAAAAAAAAAAAAAAAAAAA"),
]


def chunk(number: int) -> bytes:
    content = b'[{"index":0,"delta":{"content":"w%d "},"logprobs":null,"finish_reason":null}]}\n' % (
        number * 7919 % 1000
    )
    return HEAD + content + b"id: default.AAAAAAAAAAAAAAAAAAAAAA:%d\n\n" % (100 + 24 * number)


class Upstream:
    def __init__(self, step_s: float) -> None:
        self._step_s = step_s

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            event = await receive()
            body += event.get("body", b"")
            if not event.get("more_body"):
                break
        found = TOKENS.search(body)
        num_tokens = int(found[1]) if found else 8
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        for number in range(num_tokens):
            await asyncio.sleep(self._step_s)
            data = chunk(number) if number else ROLE + chunk(0)
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": LAST, "more_body": False})


async def serve(step_s: float) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        Upstream(step_s), http="httptools", ws="none", lifespan="off", log_config=None, access_log=False
    )
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve([listener])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step-ms", type=float, default=0.0)
    uvloop.run(serve(parser.parse_args().step_ms / 1000))


if __name__ == "__main__":
    main()
