"""What random requests must know to reach more than the first error: names that exist, ids of requests of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
from story_harness import Command

CHAT = "/v1/chat/completions"
SLOTS = "16"
FAILED = "[[fail]]"


@contextmanager
def fuzzed_balancer(redis_url: str, prefix: str, folder: Path) -> Generator[str]:
    """A balancer and a scripted agent, each a process; gives the URL of the inference service."""
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        where = ("--redis-url", redis_url, "--redis-prefix", prefix)
        started.append(Command(folder / f"{arguments[0]}.log", *arguments, *where))
        return started[-1]

    async def ready() -> str:
        anywhere = ("--inference-addr", "127.0.0.1:0", "--management-addr", "127.0.0.1:0")
        balancer = start("balancer", *anywhere, "--max-buffered-requests", "1000")
        agent = start("agent", "--engine", "scripted", "--slots", SLOTS, "--context-size", "4096", "--grace", "0")
        await agent.logged("registered")
        return f"http://{(await balancer.logged('listening', service='inference'))['address']}"

    try:
        yield asyncio.run(ready())
        logs = "\n".join(one.text for one in started)
        assert '"level": "error"' not in logs, logs[-4000:]
        assert all(one.is_running for one in started), "a process ended"
    finally:
        for one in started:
            one.process.terminate()
        for one in started:
            one.process.wait(10)


def known_ids(url: str) -> dict[str, str]:
    """Ids of requests, each in another state, by the name of the path's part that takes such."""
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:

        def ask(path: str, body: dict[str, Any]) -> str:
            return http.post(path, json={"model": "default"} | body).headers["x-request-id"]

        def chat(text: str, **fields: Any) -> str:
            return ask(CHAT, {"messages": [{"role": "user", "content": text}]} | fields)

        return {
            "done": chat("hello"),
            "stream": chat("hello", stream=True),
            "failed": chat(FAILED, background=True),
            "embeddings": ask("/v1/embeddings", {"input": "hello"}),
            "ranking": ask("/v1/rerank", {"query": "hello", "documents": ["a", "b"]}),
            "unknown": "default." + "x" * 22,
        }


def narrowed(document: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    """The document as it is for this one fleet: models and ids that it has, where any text is allowed."""
    found = deepcopy(document)
    for schema in found["components"]["schemas"].values():
        # Requests alone are closed to unknown fields.
        if schema.get("additionalProperties") is False and "model" in schema.get("properties", {}):
            schema["properties"]["model"] = {"enum": ["default", "scripted"]}
    for methods in found["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and parameter["name"].endswith("_id"):
                    parameter["schema"] = {"enum": ids}
                elif parameter["in"] == "path" and parameter["name"].startswith("model"):
                    parameter["schema"] = {"enum": ["default", "scripted", "nobody"]}
    return found
