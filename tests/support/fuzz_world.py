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

from paddler.testing.waiting import wait_until

CHAT = "/v1/chat/completions"
SLOTS = "16"
FAILED = "[[fail]]"
SPARE = "spare"
PINNED = "beginning"


@contextmanager
def fuzzed_balancer(redis_url: str, prefix: str, folder: Path) -> Generator[dict[str, str]]:
    """A balancer and a scripted agent, each a process; gives the URLs of the services."""
    started: list[Command] = []
    expendable: list[Command] = []

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
        # Random requests drain, undrain and remove this one; it is in a pool of its own.
        spare = start("agent", "--engine", "scripted", "--slots", "1", "--pool", SPARE, "--model-name", SPARE)
        await spare.logged("registered")
        expendable.append(spare)
        return {
            name: f"http://{(await balancer.logged('listening', service=name))['address']}"
            for name in ("inference", "openai", "management")
        }

    try:
        yield asyncio.run(ready())
        logs = "\n".join(one.text for one in started)
        assert '"level": "error"' not in logs, logs[-4000:]
        assert all(one.is_running for one in started if one not in expendable), "a process ended"
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
    spare_agents: list[str]
    files: list[str]
    batches: list[str]
    keys: list[str]
    headers: dict[str, str]
    """Of a key that everything is asked for with: random requests make keys, and then everybody needs one."""


def known_ids(urls: dict[str, str]) -> Known:
    """Requests of each kind, each in another state."""
    url = urls["inference"]
    headers = new_key(urls["management"], {})
    other = new_key(urls["management"], headers)["authorization"].split("-")[1]
    with httpx.Client(base_url=urls["management"], timeout=20, trust_env=False, headers=headers) as operator:
        agents = operator.get("/api/v1/agents").json()["agents"]
        spare = operator.get(f"/api/v1/pools/{SPARE}/agents").json()["agents"]
        operator.post("/api/v1/prefixes", json={"name": PINNED, "prompt": "Once upon a time"}).raise_for_status()
    with httpx.Client(base_url=url, timeout=20, trust_env=False, headers=headers) as http:

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
            [*(one["id"] for one in spare), "nobody"],
            files,
            batches,
            [other, "nobody"],
            headers,
        )


def new_key(url: str, headers: dict[str, str]) -> dict[str, str]:
    """How a key for everything is sent; balancers know it on return."""
    body = {"name": "fuzz", "scopes": ["inference", "management"]}
    made = httpx.post(f"{url}/api/v1/keys", json=body, headers=headers, trust_env=False)
    own = {"authorization": f"Bearer {made.json()['secret']}"}

    def is_needed() -> bool:
        answers = [httpx.get(f"{url}/api/v1/agents", headers=sent, trust_env=False) for sent in ({}, own)]
        return [answer.status_code for answer in answers] == [401, 200]

    asyncio.run(wait_until(is_needed, what="the key is known"))
    return own


def narrowed(document: dict[str, Any], known: Known) -> dict[str, Any]:
    """The document as it is for this one fleet: models and ids that it has, where any text is allowed."""
    found = deepcopy(document)
    ids = {"request_id": known.requests, "response_id": known.responses, "agent_id": known.agents}
    ids |= {"file_id": known.files, "batch_id": known.batches, "key_id": known.keys}
    for schema in found["components"]["schemas"].values():
        # Requests alone are closed to unknown fields.
        model = schema.get("properties", {}).get("model", {})
        if schema.get("additionalProperties") is False and model.get("type") == "string":
            schema["properties"]["model"] = {"enum": ["default", "scripted"]}
            if "previous_response_id" in schema["properties"]:
                schema["properties"]["previous_response_id"] = {"enum": [None, *known.responses]}
    for path, methods in found["paths"].items():
        # A pool may be told what to serve before it has an agent, so there any name will do.
        is_wish = "/balancer_" in path or "/history" in path
        for method, operation in methods.items():
            for parameter in operation.get("parameters", []):
                if parameter["name"] == "agent_id" and method != "get":
                    parameter["schema"] = {"enum": known.spare_agents}
                elif parameter["in"] == "path" and parameter["name"] == "name" and not is_wish:
                    parameter["schema"] = {"enum": ["default", SPARE, "nobody"]}
                elif parameter["in"] == "path" and parameter["name"].endswith("_id"):
                    parameter["schema"] = {"enum": ids[parameter["name"]]}
                elif parameter["in"] == "path" and parameter["name"] == "prefix":
                    parameter["schema"] = {"enum": [PINNED, "nobody"]}
                elif parameter["in"] == "path" and parameter["name"].startswith("model"):
                    parameter["schema"] = {"enum": ["default", "scripted", "nobody"]}
    return found
