"""Logs tell of every request, how it went and what it cost; what was in it they never tell, at any level."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from native_harness import params, raw_socket
from story_harness import Command

from paddler.store.client import Store
from paddler.testing.waiting import wait_until
from paddler.up.starter import find_starter

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240), pytest.mark.xdist_group("logs")]

TEXT = "zebramarmalade"
"""Is in every prompt, and in whatever else a client can write."""
KEY = "sk-quince7731"
"""Is where clients put their keys, right and wrong."""
ANSWER = "quagmirewaltz"
"""What the model says."""
HEADERS = {
    "authorization": f"Bearer {KEY}",
    "x-api-key": KEY,
    "api-key": KEY,
    "openai-organization": KEY,
    "cookie": f"session={KEY}",
}
SAYS = f"{TEXT} [[say={ANSWER}]]"


class LoggedFleet:
    """Each process at `debug`: a balancer, a worker, an agent with the starter model, and one whose answers we know."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._where = ("--redis-url", store.url, "--redis-prefix", store.prefix, "--log-level", "debug")
        self._folder = folder
        self.commands: list[Command] = []
        self.url = self.management = ""

    def start(self, *arguments: str) -> Command:
        name = f"{len(self.commands)}-{arguments[0]}"
        self.commands.append(Command(self._folder / f"{name}.log", *arguments, *self._where))
        return self.commands[-1]

    async def ready(self) -> None:
        anywhere = [part for one in ("inference", "management") for part in (f"--{one}-addr", "127.0.0.1:0")]
        balancer = self.start("balancer", *anywhere)
        self.start("worker")
        agents = [
            self.start("agent", "--slots", "2", "--grace", "0", "--model", str(find_starter())),
            self.start("agent", "--slots", "2", "--grace", "0", "--engine", "scripted", "--pool", "scripted"),
        ]
        for agent in agents:
            await agent.logged("registered")
        self.url = f"http://{(await balancer.logged('listening', service='inference'))['address']}"
        self.management = f"http://{(await balancer.logged('listening', service='management'))['address']}"

    @property
    def logs(self) -> str:
        return "\n".join(command.text for command in self.commands)

    def records(self) -> list[dict[str, Any]]:
        lines = [line for line in self.commands[0].text.split("\n")[:-1] if line.startswith("{")]
        return [record for line in lines if (record := json.loads(line))["event"] == "request"]

    def stop(self) -> None:
        for command in self.commands:
            command.process.terminate()
        for command in self.commands:
            command.process.wait(20)


@pytest.fixture
async def fleet(store: Store, tmp_path: Path) -> AsyncIterator[LoggedFleet]:
    fleet = LoggedFleet(store, tmp_path)
    try:
        await fleet.ready()
        yield fleet
    finally:
        fleet.stop()


def bodies(model: str) -> list[tuple[str, dict[str, Any]]]:
    """A request of every route that takes words, valid as far as the model can do it."""
    said = [{"role": "system", "content": TEXT}, {"role": "user", "content": SAYS}]
    tool = {"type": "function", "function": {"name": TEXT, "description": TEXT, "parameters": {"type": "object"}}}
    document = {"id": TEXT, "content": TEXT}
    short: dict[str, Any] = {"model": model, "max_tokens": 4}
    return [
        ("/v1/chat/completions", short | {"messages": said}),
        ("/v1/chat/completions", short | {"messages": said, "stream": True, "stop": [TEXT], "user": KEY}),
        ("/v1/chat/completions", short | {"messages": said, "n": 2, "logprobs": True, "metadata": {"a": TEXT}}),
        ("/v1/chat/completions", short | {"messages": said, "tools": [tool], "prompt_cache_key": KEY}),
        ("/v1/chat/completions", short | {"messages": said, "background": True}),
        ("/v1/completions", short | {"prompt": SAYS, "suffix": TEXT}),
        ("/v1/completions", short | {"prompt": SAYS}),
        ("/v1/responses", {"model": model, "input": SAYS, "instructions": TEXT, "max_output_tokens": 16}),
        ("/v1/messages", short | {"system": TEXT, "messages": [{"role": "user", "content": SAYS}]}),
        ("/v1/messages/count_tokens", {"model": model, "messages": [{"role": "user", "content": TEXT}]}),
        ("/v1/embeddings", {"model": model, "input": [TEXT, SAYS]}),
        ("/v1/rerank", {"model": model, "query": TEXT, "documents": [TEXT, "b"]}),
        ("/tokenize", {"model": model, "content": TEXT, "with_pieces": True}),
        ("/apply-template", {"model": model, "messages": said}),
        ("/api/v1/continue_from_conversation_history", params(SAYS, max_tokens=4)),
        ("/api/v1/continue_from_raw_prompt", {"raw_prompt": SAYS, "max_tokens": 4}),
        ("/api/v1/generate_embedding_batch", {"input_batch": [document], "normalization_method": "None"}),
    ]


def broken(model: str) -> list[tuple[str, bytes]]:
    """What is refused: by the reader of JSON, by a field's type or value, by grammar and schema, by the model."""
    said = [{"role": "user", "content": SAYS}]
    data = base64.b64encode(TEXT.encode()).decode()
    image = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": TEXT, "pattern": f"({TEXT}"}}}
    fields: list[dict[str, Any]] = [
        {"messages": TEXT},
        {"messages": [{"role": TEXT, "content": TEXT}]},
        {"messages": said, TEXT: KEY},
        {"messages": said, "temperature": TEXT},
        {"messages": said, "response_format": schema},
        {"messages": said, "grammar": f'root ::= "{TEXT}'},
        {"messages": said, "grammar": f"root ::= {TEXT}"},
        {"messages": [{"role": "user", "content": image}]},
        {"messages": [{"role": "user", "content": [{"type": TEXT, "text": TEXT}]}]},
        {"messages": [{"role": "tool", "tool_call_id": TEXT, "content": TEXT}]},
        {"messages": [{"role": "user", "content": f"{TEXT} " * 9000}]},
        {"messages": [{"role": "user", "content": f"{TEXT} [[fail]]"}]},
        {"messages": said, "tool_choice": {"type": "function", "function": {"name": TEXT}}},
        {"messages": said, "chat_template_kwargs": {"x": TEXT}},
        {"messages": said, "logit_bias": {TEXT: 1}},
        {"messages": said, "model": TEXT},
    ]
    found = [("/v1/chat/completions", json.dumps({"model": model, **one}).encode()) for one in fields]
    return [
        *found,
        ("/v1/chat/completions", f'{{"messages": "{TEXT}'.encode()),
        ("/v1/chat/completions", TEXT.encode() + b"\xff\xfe"),
        ("/v1/messages", json.dumps({"model": model, "messages": TEXT, "max_tokens": TEXT}).encode()),
        ("/v1/responses", json.dumps({"model": model, "input": [{"type": TEXT}]}).encode()),
        ("/v1/responses", json.dumps({"model": model, "input": TEXT, "previous_response_id": TEXT}).encode()),
        ("/v1/embeddings", json.dumps({"model": model, "input": {TEXT: TEXT}}).encode()),
        ("/api/v1/continue_from_raw_prompt", json.dumps({"raw_prompt": {TEXT: 1}}).encode()),
        (f"/v1/{TEXT}", TEXT.encode()),
        (f"/v1/chat/completions?api_key={KEY}&q={TEXT}", json.dumps({"model": model, "messages": said}).encode()),
    ]


async def ask_everything(http: httpx.AsyncClient, model: str) -> list[int]:
    statuses: list[int] = []
    for path, body in bodies(model):
        statuses.append((await http.post(path, json=body)).status_code)
    for path, body in broken(model):
        statuses.append((await http.post(path, content=body)).status_code)
    said = {"model": model, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 2}
    for name in ("x-request-class", "x-request-timeout", "x-sse-keepalive", "last-event-id", "idempotency-key"):
        answer = await http.post("/v1/chat/completions", json=said, headers={name: KEY})
        statuses.append(answer.status_code)
    paths = [f"/v1/requests/{KEY}", f"/v1/models/{TEXT}", f"/v1/files/{KEY}", f"/v1/requests/default.{KEY}/stream"]
    return statuses + [(await http.get(path)).status_code for path in paths]


async def run_a_batch(http: httpx.AsyncClient, model: str) -> None:
    """One line that is done, one that fails; a file that is none, and one with a line twice."""
    body = {"model": model, "messages": [{"role": "user", "content": SAYS}], "max_tokens": 3}
    failing = body | {"messages": [{"role": "user", "content": f"{TEXT} [[fail]]"}]}
    lines = [
        {"custom_id": f"{TEXT}{number}", "method": "POST", "url": "/v1/chat/completions", "body": one}
        for number, one in enumerate((body, failing))
    ]
    good = "\n".join(map(json.dumps, lines))
    twice = "\n".join([json.dumps(lines[0])] * 2)
    for text in (good, f'{{"custom_id": "{TEXT}", "body": "{TEXT}"}}\n{TEXT}', twice):
        upload = {"file": (f"{TEXT}.jsonl", text.encode())}
        file = (await http.post("/v1/files", data={"purpose": "batch"}, files=upload)).json()
        asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = (await http.post("/v1/batches", json=asked)).json()

        async def has_ended(batch_id: str = batch["id"]) -> bool:
            status = (await http.get(f"/v1/batches/{batch_id}")).json()["status"]
            return status in ("completed", "failed")

        await wait_until(has_ended, timeout_s=60, poll_s=0.1, what="a batch has ended")


async def talk_over_a_socket(url: str) -> None:
    async with raw_socket(url, additional_headers=HEADERS) as socket:
        await socket.ask("1", SAYS, max_tokens=4)
        await socket.texts(1)
        for wrong in (TEXT, json.dumps({TEXT: KEY}), json.dumps({"Request": {"id": TEXT, "request": {"x": TEXT}}})):
            await socket.send(wrong)
            await socket.error()
        await socket.send(b"\xff" + TEXT.encode())
        with suppress(Exception):  # it may close what sends no text
            await socket.error()


async def leave_in_the_middle(http: httpx.AsyncClient) -> None:
    body = {"model": "default", "messages": [{"role": "user", "content": TEXT}], "stream": True, "max_tokens": 500}
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for _ in answer.aiter_lines():
            break


async def test_no_prompt_no_answer_and_no_key_is_in_any_log(fleet: LoggedFleet) -> None:
    async with AsyncExitStack() as stack:
        http = httpx.AsyncClient(base_url=fleet.url, headers=HEADERS, timeout=150, trust_env=False)
        await stack.enter_async_context(http)
        scripted, llama = await asyncio.gather(ask_everything(http, "scripted"), ask_everything(http, "default"))
        for statuses in (scripted, llama):
            # All were answered: valid ones, most of them, and broken ones.
            assert statuses.count(200) >= 12, statuses
            assert sum(400 <= status < 500 for status in statuses) >= 25, statuses
        await talk_over_a_socket(fleet.url)
        await run_a_batch(http, "scripted")
        await leave_in_the_middle(http)
        operator = httpx.AsyncClient(base_url=fleet.management, headers=HEADERS, timeout=20, trust_env=False)
        await stack.enter_async_context(operator)
        for path in ("/metrics", "/api/v1/agents", f"/metrics?x={KEY}", f"/api/v1/agent/{KEY}/model_metadata"):
            await operator.get(path)
        await wait_until(lambda: any(one.get("outcome") == "client_gone" for one in fleet.records()))
    fleet.stop()
    leaks = [line for line in fleet.logs.splitlines() if any(mark in line for mark in (TEXT, KEY, ANSWER))]
    assert leaks == []
    # It has looked at something: each process has said what it had to say, at debug too.
    levels = [json.loads(line)["level"] for line in fleet.logs.splitlines() if line.startswith("{")]
    assert {"debug", "info"} <= set(levels)
    assert all(command.text for command in fleet.commands)


async def test_each_request_has_a_line(fleet: LoggedFleet) -> None:
    """With its id you find it in `paddler queue`, in traces and at `/v1/requests/<id>`."""
    body: dict[str, Any] = {"model": "scripted", "messages": [{"role": "user", "content": "[[tokens=9]] a b"}]}
    async with httpx.AsyncClient(base_url=fleet.url, timeout=30, trust_env=False) as http:
        answer = await http.post("/v1/chat/completions", json=body, headers={"x-request-id": "mine-1"})
        await http.post("/v1/chat/completions", json=body | {"temperature": "hot"})
        await http.get("/health")
    records = await wait_until(lambda: found if len(found := fleet.records()) >= 3 else None)
    done, refused, health = records[:3]
    usage = answer.json()["usage"]
    assert {name: done[name] for name in ("level", "service", "method", "route", "status")} == {
        "level": "info",
        "service": "inference",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
    }
    assert (done["request"], done["x_request_id"]) == (answer.headers["x-paddler-request-id"], "mine-1")
    assert (done["prompt_tokens"], done["output_tokens"]) == (usage["prompt_tokens"], 9)
    assert (done["tenant"], done["outcome"]) == ("anonymous", "stop")
    assert done["ms"] > 0
    assert (refused["status"], "tenant" in refused) == (400, False)
    assert (health["level"], health["route"]) == ("debug", "/health")
