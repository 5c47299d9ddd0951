"""Whether what a service says agrees with its OpenAPI document, to the letter: what the document does not name may not
be there either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from http_harness import HttpBalancer
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

EVENTS = "text/event-stream"
ENDS = ("message_stop", "error", "response.completed", "response.incomplete", "response.failed")


def closed(schema: Any) -> Any:
    """The same with every object closed that names its fields: a new field must be in the document first."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(one) for name, one in schema.items()}
    if "properties" in found and isinstance(schema["properties"], dict) and "type" in found:
        found.setdefault("additionalProperties", False)
    return found


class Document:
    """A service's `/openapi.json`, and what it says of an answer."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self._components = closed(content["components"])
        self._validators: dict[int, tuple[Any, Draft202012Validator]] = {}
        """By the identity of their schemas, which live as long: with all components each takes milliseconds to make."""

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        for path, methods in self.content["paths"].items():
            for method, operation in methods.items():
                yield path, method, operation

    def validate(self, schema: dict[str, Any], value: Any) -> None:
        """Raises `AssertionError` with the place in `value` that disagrees."""
        if id(schema) not in self._validators:
            whole = closed(schema) | {"components": self._components}
            self._validators[id(schema)] = schema, Draft202012Validator(whole)
        _, validator = self._validators[id(schema)]
        error = best_match(validator.iter_errors(value))
        assert error is None, f"{error.json_path}: {error.message[:300]}"

    def content_of(self, path: str, method: str, status: int, media: str) -> dict[str, Any]:
        answers: dict[str, Any] = self.content["paths"][path][method]["responses"]
        assert str(status) in answers, f"{method} {path} answers {status}, which its document does not know"
        content: dict[str, Any] = answers[str(status)]["content"]
        assert media in content, f"{method} {path} answers {status} as {media}, not as {sorted(content)}"
        return content[media]

    def check(
        self, path: str, method: str, status: int, media_type: str, text: str, *, may_be_empty: bool = False
    ) -> None:
        """Raises `AssertionError` for an answer that the document does not promise. `may_be_empty`: who goes on behind
        the last event of a stream gets no event."""
        media = media_type.partition(";")[0].strip()
        content = self.content_of(path, method, status, media)
        if media == EVENTS and may_be_empty and "data: " not in text:
            assert all(line == "" or line.startswith(":") for line in text.split("\n")), "neither event nor comment"
        elif media == EVENTS:
            self._check_events(content["itemSchema"]["properties"]["data"], text)
        elif media == "application/json" and "itemSchema" in content:
            lines = [json.loads(line) for line in text.split("\n") if line]
            assert lines, "an answer without a line"
            assert is_end(lines[-1]), "lines that just stop"
            for line in lines:
                self.validate(content["itemSchema"], line)
        elif media == "application/json":
            self.validate(content["schema"], json.loads(text))

    def check_event(self, path: str, status: int, data: str) -> None:
        """One event of a stream that has no end."""
        content = self.content_of(path, "get", status, EVENTS)
        self.validate(content["itemSchema"]["properties"]["data"]["contentSchema"], json.loads(data))

    def _check_events(self, schema: dict[str, Any], text: str) -> None:
        events = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
        assert events, "a stream without an event"
        if "anyOf" in schema:
            schema, last = schema["anyOf"]
            is_done = events[-1] == last["const"]
            events = events[:-1] if is_done else events
        else:
            is_done = False
        assert is_done or is_end(json.loads(events[-1])), "a stream that just stops"
        for event in events:
            self.validate(schema["contentSchema"], json.loads(event))


_documents: dict[str, Document] = {}


async def document_of(balancer: HttpBalancer, service: str = "inference") -> Document:
    """Every balancer has the same, and takes half a second to make it: one of them is asked."""
    if service not in _documents:
        async with balancer.http(service) as http:
            _documents[service] = Document((await http.get("/openapi.json")).json())
    return _documents[service]


def is_end(event: Any) -> bool:
    """Whether nothing follows it, in those protocols that have an event for that."""
    if "type" in event:
        return event["type"] in ENDS
    if "Error" in event:
        return True
    result = event.get("Response", {}).get("response", {})
    if "Embedding" in result:
        return result["Embedding"] == "Done"
    return bool(result) and not any(name.endswith(("Token", "Parsed")) for name in result["GeneratedToken"])
