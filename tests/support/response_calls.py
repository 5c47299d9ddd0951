"""Short names for what tests of `/v1/responses` do again and again."""

from __future__ import annotations

import json
from typing import Any

import httpx

PATH = "/v1/responses"


def asked(input: Any = "hello", **fields: Any) -> dict[str, Any]:
    """A body."""
    return {"model": "default", "input": input, **fields}


def events_of(text: str) -> list[dict[str, Any]]:
    """The data of all events of a stream, whose names must be theirs; comments and ids are left out."""
    found: list[dict[str, Any]] = []
    for event in text.split("\n\n")[:-1]:
        lines = [line for line in event.split("\n") if not line.startswith((":", "id: "))]
        assert [line.partition(": ")[0] for line in lines] == ["event", "data"], event
        found.append(json.loads(lines[1].removeprefix("data: ")))
        assert lines[0] == f"event: {found[-1]['type']}"
    return found


def text_of(response: dict[str, Any]) -> str:
    """As the official client's `output_text`."""
    messages = [item for item in response["output"] if item["type"] == "message"]
    return "".join(part["text"] for message in messages for part in message["content"])


async def create(http: httpx.AsyncClient, input: Any = "hello", **fields: Any) -> dict[str, Any]:
    answer = await http.post(PATH, json=asked(input, **fields))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def retrieve(http: httpx.AsyncClient, response_id: str) -> dict[str, Any]:
    answer = await http.get(f"{PATH}/{response_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def replay(http: httpx.AsyncClient, response_id: str, **query: Any) -> list[dict[str, Any]]:
    answer = await http.get(f"{PATH}/{response_id}", params={"stream": "true", **query})
    assert answer.status_code == 200, answer.text
    return events_of(answer.text)
