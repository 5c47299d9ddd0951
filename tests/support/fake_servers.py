"""vLLM and Ollama as they are on the wire, without either: vLLM for CPUs wants builds of PyTorch that the
package index does not have, and Ollama is no package at all. Every answer is written after their own code and
documents.

- vLLM: `engine/protocol.py`, `chat_completion/serving.py` and `completion/serving.py` of `vllm/entrypoints/openai`; its
  documents "OpenAI-Compatible Server" and "Production Metrics".
- Ollama: `openai/openai.go`, `middleware/openai.go`, `server/routes.go`; its documents of the API.

What an agent sends is checked against what they take: a field that they do not know fails the request, so that a test
notices it, though vLLM would only log it and Ollama say nothing.
"""

from __future__ import annotations

from typing import Any

from fake_upstream import Asked, FakeUpstream, Handler, always

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

_OPENAI = {
    *("model", "messages", "prompt", "stream", "stream_options", "max_tokens", "stop", "temperature", "top_p", "seed"),
    *("frequency_penalty", "presence_penalty", "response_format", "tools"),
}
VLLM_FIELDS = _OPENAI | {
    *("top_k", "min_p", "repetition_penalty", "ignore_eos", "logit_bias", "logprobs", "top_logprobs", "tool_choice"),
    *("parallel_tool_calls", "chat_template_kwargs", "add_generation_prompt", "continue_final_message", "cache_salt"),
}
OLLAMA_FIELDS = _OPENAI | {"suffix", "reasoning_effort", "tool_choice", "parallel_tool_calls"}


def _only(fields: set[str], answer: Handler) -> Handler:
    async def checked(asked: Asked) -> None:
        if unknown := sorted(set(asked.body or {}) - fields):
            await asked.json({"error": {"message": f"unknown fields: {unknown}", "type": "BadRequestError"}}, 400)
        else:
            await answer(asked)

    return checked


def vllm(model: str = "Qwen/Qwen3-0.6B", *, context: int = 4096) -> FakeUpstream:
    """One that serves a model which generates. The routes of other tasks are not there."""
    made = FakeUpstream(slots=None)
    card = {
        "id": model,
        "object": "model",
        "created": 1_760_000_000,
        "owned_by": "vllm",
        "root": model,
        "parent": None,
        "max_model_len": context,
        "permission": [{"id": "modelperm-1", "object": "model_permission", "allow_sampling": True}],
    }
    made.routes = {
        "/v1/models": always({"object": "list", "data": [card]}),
        "/health": _empty_200,
        "/version": always({"version": "0.11.0"}),
        "/metrics": _metrics,
    }
    made.nowhere = always({"detail": "Not Found"}, 404)
    for path, field in ((CHAT, "messages"), (COMPLETIONS, "prompt")):
        words = f"[{{'type': 'missing', 'loc': ('body', '{field}'), 'msg': 'Field required', 'input': {{}}}}]"
        made.empty[path] = always({"error": {"message": words, "type": "Bad Request", "param": None, "code": 400}}, 400)
        made.routes[path] = vllm_says("Hello", " there", model=model)
    return made


async def _empty_200(asked: Asked) -> None:
    await asked.begin(200, "text/plain", size=0)


async def _metrics(asked: Asked) -> None:
    lines = (
        "# HELP vllm:num_requests_running Number of requests in model execution batches.",
        "# TYPE vllm:num_requests_running gauge",
        'vllm:num_requests_running{engine="0",model_name="m"} 3.0',
        "# HELP vllm:num_requests_waiting Number of requests waiting to be processed.",
        "# TYPE vllm:num_requests_waiting gauge",
        'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0',
    )
    data = "\n".join([*lines, ""]).encode()
    await asked.begin(200, "text/plain; version=0.0.4; charset=utf-8", size=len(data))
    await asked.raw(data)


def vllm_says(
    *said: str | dict[str, Any],
    model: str = "Qwen/Qwen3-0.6B",
    finish: str = "stop",
    stop_reason: str | int | None = None,
    prompt_tokens: int = 12,
    cached_tokens: int | None = None,
    error: str | None = None,
) -> Handler:
    """Pieces of text or whole deltas, one a chunk; then, with `error`, what it says when its engine fails under way."""

    async def answer(asked: Asked) -> None:
        is_chat = asked.path == CHAT
        head = {
            "id": "chatcmpl-1" if is_chat else "cmpl-1",
            "object": "chat.completion.chunk" if is_chat else "text_completion",
            "created": 1_760_000_000,
            "model": model,
        }

        def part(said: str | dict[str, Any], **more: Any) -> dict[str, Any]:
            what = {"delta": said if isinstance(said, dict) else {"content": said}} if is_chat else {"text": said}
            return {"index": 0, **what, "logprobs": None, "finish_reason": None, **more}

        await asked.begin(200, "text/event-stream; charset=utf-8")
        if is_chat:
            await asked.event({**head, "choices": [part({"role": "assistant", "content": ""})]})
        for one in said:
            await asked.event({**head, "choices": [part(one)]})
        if error is not None:
            await asked.event({"error": {"message": error, "type": "InternalServerError", "param": None, "code": 500}})
            await asked.event(b"[DONE]")
            return
        last = part({"content": ""} if is_chat else "", finish_reason=finish, stop_reason=stop_reason)
        await asked.event({**head, "choices": [last]})
        if (asked.body.get("stream_options") or {}).get("include_usage"):
            details = {} if cached_tokens is None else {"prompt_tokens_details": {"cached_tokens": cached_tokens}}
            usage = {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens + len(said)}
            await asked.event({**head, "choices": [], "usage": {**usage, "completion_tokens": len(said), **details}})
        await asked.event(b"[DONE]")

    return _only(VLLM_FIELDS, answer)


def ollama(*models: str) -> FakeUpstream:
    """One with these models, by default `llama3.2:latest`; they are loaded when they are asked for."""
    made = FakeUpstream(slots=None)
    names = models or ("llama3.2:latest",)
    cards = [{"id": name, "object": "model", "created": 1_760_000_000, "owned_by": "library"} for name in names]
    made.routes = {
        "/": _is_running,
        "/api/version": always({"version": "0.12.3"}),
        "/api/ps": always({"models": [_loaded(names[0])]}),
        "/api/tags": always({"models": [{"name": name, "model": name} for name in names]}),
        "/v1/models": always({"object": "list", "data": cards}),
        "/v1/embeddings": always(_error("this model does not support embeddings", 501), 501),
        CHAT: ollama_says("Hello", " there"),
        COMPLETIONS: ollama_says("Hello", " there"),
    }
    made.empty = {
        CHAT: always(_error("[] is too short - 'messages'", 400), 400),
        # `GenerateHandler` looks for the model before it looks at anything else.
        COMPLETIONS: always(_error("model '' not found", 404), 404),
    }
    made.nowhere = _no_page
    return made


def _loaded(name: str) -> dict[str, Any]:
    details = {"parent_model": "", "format": "gguf", "family": "llama", "quantization_level": "Q4_K_M"}
    sizes = {"size": 2_789_163_008, "size_vram": 0, "context_length": 4096}
    return {"name": name, "model": name, "digest": "a80c4f17acd5", "details": details, "expires_at": "0", **sizes}


async def _is_running(asked: Asked) -> None:
    await asked.begin(200, "text/plain; charset=utf-8", size=17)
    await asked.raw(b"Ollama is running")


async def _no_page(asked: Asked) -> None:
    await asked.begin(404, "text/plain", size=18)
    await asked.raw(b"404 page not found")


def _error(message: str, status: int) -> dict[str, Any]:
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}


def ollama_says(
    *said: str | dict[str, Any], model: str = "llama3.2", finish: str = "stop", breaks_off: bool = False
) -> Handler:
    """Pieces of text or whole deltas, one a chunk. `breaks_off`: its runner fails under way, of which the stream only
    tells by ending, without a reason and without `[DONE]`."""

    async def answer(asked: Asked) -> None:
        is_chat, num = asked.path == CHAT, len(said)
        has_usage = bool((asked.body.get("stream_options") or {}).get("include_usage"))
        head = {
            "id": f"{'chatcmpl' if is_chat else 'cmpl'}-7",
            "object": "chat.completion.chunk" if is_chat else "text_completion",
            "created": 1_760_000_000,
            "model": model,
            "system_fingerprint": "fp_ollama",
        }
        # Of completions every chunk has a usage, which is of zeros until the end.
        zeros = {"usage": dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)}
        beside = zeros if has_usage and not is_chat else {}

        def part(said: str | dict[str, Any], finish: str | None = None) -> dict[str, Any]:
            if not is_chat:
                return {"text": said, "index": 0, "finish_reason": finish}
            delta = said if isinstance(said, dict) else {"content": said}
            return {"index": 0, "delta": {"role": "assistant", "content": "", **delta}, "finish_reason": finish}

        await asked.begin(200, "text/event-stream")
        for one in said:
            await asked.event({**head, "choices": [part(one)], **beside})
        if breaks_off:
            await asked.event({**head, "choices": [part("")], **beside})
            return
        await asked.event({**head, "choices": [part("", finish)], **beside})
        if has_usage:
            usage = {"prompt_tokens": 26, "completion_tokens": num, "total_tokens": 26 + num}
            await asked.event({**head, "choices": [], "usage": usage})
        await asked.event(b"[DONE]")

    return _only(OLLAMA_FIELDS, answer)
