"""Lines of a batch as OpenAI's API has them: `{"custom_id", "method", "url", "body"}` in, `{"id", "custom_id",
"response", "error"}` out. A body is read by the code of its route, and its answer rendered by it.

Workers load `FORMAT` by its entry point.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from litestar.exceptions import ClientException
from msgspec import Meta, Raw, Struct

from api.openai.batch_bodies import ENDPOINTS
from api.openai.errors import error_object
from api.validation import decode_body
from paddler.batches.lines import LineCall, LineProblem
from paddler.errors import InvalidField, PaddlerError

MAX_CUSTOM_ID = 512


class BatchLine(Struct, forbid_unknown_fields=True):
    custom_id: Annotated[str, Meta(min_length=1, max_length=MAX_CUSTOM_ID)]
    method: str
    url: str
    body: Raw


class _CustomId(Struct):
    custom_id: str = ""


class OpenAILines:
    """A `paddler.batches.lines.LineFormat`."""

    async def read(self, line: bytes, endpoint: str, *, seed: int, created: int) -> LineCall:
        try:
            found = decode_body(line, _decoder, {})
        except InvalidField as error:
            code = "missing_required_parameter" if error.message.endswith("is required.") else "invalid_line"
            raise LineProblem(code, error.message.replace("The body", "The line"), error.param) from None
        except ClientException as error:
            raise LineProblem("invalid_json_line", error.detail.replace("The body", "The line")) from None
        if found.method != "POST":
            raise LineProblem("invalid_method", f"`method` must be POST, not {found.method[:32]!r}.", "method")
        if found.url != endpoint:
            told = f"`url` must be the endpoint of the batch, {endpoint}, not {found.url[:64]!r}."
            raise LineProblem("mismatched_url", told, "url")
        try:
            call = await ENDPOINTS[endpoint](bytes(found.body), seed, created)
        except PaddlerError as error:
            raise LineProblem(error.code, error.message, _below_body(error.param)) from None
        except ClientException as error:
            raise LineProblem("invalid_json_line", error.detail, "body") from None
        return LineCall(found.custom_id, call.model, call.requests, call.render)

    def custom_id(self, line: bytes) -> str:
        try:
            return _id_decoder.decode(line).custom_id
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return ""

    def answered(self, line_id: str, custom_id: str, request_id: str, body: Iterable[bytes]) -> bytes:
        return _with_response(line_id, custom_id, request_id, 200, b"".join(body))

    def refused(self, line_id: str, custom_id: str, request_id: str | None, error: PaddlerError) -> bytes:
        return _with_response(line_id, custom_id, request_id, error.status, _encode(error_object(error)))

    def not_run(self, line_id: str, custom_id: str, code: str, message: str) -> bytes:
        error = {"code": code, "message": message}
        return _encode({"id": line_id, "custom_id": custom_id, "response": None, "error": error}) + b"\n"


FORMAT = OpenAILines()

_decoder = msgspec.json.Decoder(BatchLine)
_id_decoder = msgspec.json.Decoder(_CustomId)
_encode = msgspec.json.Encoder().encode


def _below_body(param: str | None) -> str:
    return f"body.{param}" if param else "body"


def _with_response(line_id: str, custom_id: str, request_id: str | None, status: int, body: bytes) -> bytes:
    response = {"status_code": status, "request_id": request_id or line_id, "body": Raw(body)}
    return _encode({"id": line_id, "custom_id": custom_id, "response": response, "error": None}) + b"\n"
