"""The envelopes that Paddler 4 sends, each the text of a JSON object: constant parts are encoded once."""

from __future__ import annotations

import msgspec

_encode = msgspec.json.Encoder().encode


class Envelopes:
    """Of one request, by what its client calls it. `generated_by` is the name of the agent, None before there is
    one."""

    def __init__(self, request_id: str) -> None:
        self._id = _encode(request_id)
        self._generated_by: str | None = None
        self._head = self._response_head(None)

    def token(self, kind: str, text: str, generated_by: str | None) -> bytes:
        """`kind` is `ContentToken` or one of the others."""
        return self.told(kind, _encode(text), generated_by)

    def told(self, kind: str, value: bytes, generated_by: str | None) -> bytes:
        """Any result of a generation; `value` is JSON."""
        return b'%b{"GeneratedToken":{"%b":%b}}}}' % (self._begin(generated_by), kind.encode(), value)

    def embedding(self, value: bytes, generated_by: str | None) -> bytes:
        """Any result of a batch of embeddings; `value` is JSON."""
        return b'%b{"Embedding":%b}}}' % (self._begin(generated_by), value)

    def error(self, code: int, description: str) -> bytes:
        told = _encode({"code": code, "description": description})
        return b'{"Error":{"request_id":%b,"error":%b}}' % (self._id, told)

    def _begin(self, generated_by: str | None) -> bytes:
        if generated_by != self._generated_by:
            self._generated_by = generated_by
            self._head = self._response_head(generated_by)
        return self._head

    def _response_head(self, generated_by: str | None) -> bytes:
        return b'{"Response":{"generated_by":%b,"request_id":%b,"response":' % (_encode(generated_by), self._id)
