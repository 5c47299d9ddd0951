"""What random requests must know to reach more than the first error: names that exist, ids of requests of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from story_harness import Command

CHAT = "/v1/chat/completions"
SLOTS = "16"
FAILED = "[[fail]]"


@contextmanager
def fuzzed_balancer(redis_url: str, prefix: str, folder: Path) -> Generator[dict[str, str]]:
    """A balancer and a scripted agent, each a process; gives the URLs of the services."""
    started: list[Command] = []

    def start(*arguments: str) -> Command:
        where = ("--redis-url", redis_url, "--redis-prefix", prefix)
        started.append(Command(folder / f"{arguments[0]}.log", *arguments, *where))
        return started[-1]

    async def ready() -> dict[str, str]:
        addresses = ("--inference-addr", "--management-addr", "--compat-openai-addr")
        anywhere = [part for name in addresses for part in (name, "127.0.0.1:0")]
        balancer = start("balancer", *anywhere, "--max-buffered-requests", "1000")
        agent = start("agent", "--engine", "scripted", "--slots", SLOTS, "--context-size", "4096", "--grace", "0")
        await agent.logged("registered")
        return {
            name: f"http://{(await balancer.logged('listening', service=name))['address']}"
            for name in ("inference", "openai", "management")
        }

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


class Known(NamedTuple):
    """What there is to be asked for."""

    requests: list[str]
    responses: list[str]
    agents: list[str]
    files: list[str]
    batches: list[str]


def known_ids(urls: dict[str, str]) -> Known:
    """Requests of each kind, each in another state."""
    url = urls["inference"]
    agents = httpx.get(f"{urls['management']}/api/v1/agents", trust_env=False).json()["agents"]
    with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:

        def ask(path: str, body: dict[str, Any]) -> str:
            return http.post(path, json={"model": "default"} | body).headers["x-request-id"]

        def chat(text: str, **fields: Any) -> str:
            return ask(CHAT, {"messages": [{"role": "user", "content": text}]} | fields)

        def native(text: str) -> str:
            history = [{"role": "user", "content": text}]
            asked = {"add_generation_prompt": True, "enable_thinking": False, "max_tokens": 9}
            body = asked | {"conversation_history": history}
            told = http.post("/api/v1/continue_from_conversation_history", json=body)
            return told.headers["x-paddler-request-id"]

        message = {"max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]}
        responses = [
            ask("/v1/responses", {"input": "hello"}),
            ask("/v1/responses", {"input": [{"role": "user", "content": "hello"}], "stream": True}),
            ask("/v1/responses", {"input": FAILED, "background": True}),
        ]
        unknown = "default." + "x" * 22
        requests = [
            chat("hello"),
            chat("hello", stream=True),
            chat(FAILED, background=True),
            ask("/v1/completions", {"prompt": "hello"}),
            ask("/v1/messages", message),
            ask("/v1/messages/count_tokens", {"messages": message["messages"]}),
            ask("/tokenize", {"content": "hello"}),
            ask("/v1/embeddings", {"input": "hello"}),
            ask("/v1/rerank", {"query": "hello", "documents": ["a", "b"]}),
            native("hello"),
            unknown,
        ]
        lines = b'{"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "default"}}'
        upload = http.post("/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", lines)})
        files = [upload.json()["id"], "file-" + "x" * 24]
        batch = {"input_file_id": files[0], "endpoint": CHAT, "completion_window": "1h"}
        batches = [http.post("/v1/batches", json=batch).json()["id"], "batch_" + "x" * 24]
        return Known(
            [*requests, *responses],
            [f"resp_{one}" for one in (*responses, requests[0], unknown)],
            [*(one["id"] for one in agents), "nobody"],
            files,
            batches,
        )


def narrowed(document: dict[str, Any], known: Known) -> dict[str, Any]:
    """The document as it is for this one fleet: models and ids that it has, where any text is allowed."""
    found = deepcopy(document)
    ids = {"request_id": known.requests, "response_id": known.responses, "agent_id": known.agents}
    ids |= {"file_id": known.files, "batch_id": known.batches}
    for schema in found["components"]["schemas"].values():
        # Requests alone are closed to unknown fields.
        model = schema.get("properties", {}).get("model", {})
        if schema.get("additionalProperties") is False and model.get("type") == "string":
            schema["properties"]["model"] = {"enum": ["default", "scripted"]}
            if "previous_response_id" in schema["properties"]:
                schema["properties"]["previous_response_id"] = {"enum": [None, *known.responses]}
    for methods in found["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path" and parameter["name"].endswith("_id"):
                    parameter["schema"] = {"enum": ids[parameter["name"]]}
                elif parameter["in"] == "path" and parameter["name"].startswith("model"):
                    parameter["schema"] = {"enum": ["default", "scripted", "nobody"]}
    return found
