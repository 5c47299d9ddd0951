"""How much a request asks for, where it ends, and what its stream tells at the end."""

from __future__ import annotations

from api.openai.schema import GenerationRequest
from api.validation import unsupported
from paddler.errors import InvalidField


def read_include_usage(request: GenerationRequest) -> bool:
    """Whether a stream ends with usage. Raises `InvalidField`."""
    options = request.stream_options
    if options is not None and not request.stream:
        raise InvalidField("`stream_options` needs `stream` to be true.", param="stream_options")
    if options is not None and options.include_obfuscation:
        raise unsupported("stream_options.include_obfuscation", "`include_obfuscation`")
    return options is not None and bool(options.include_usage)


def read_max_tokens(request: GenerationRequest, newer: int | None = None) -> int | None:
    """What the names for it say, `newer` being `max_completion_tokens`; -1 of `n_predict` is no bound. Raises
    `InvalidField`."""
    old = request.max_tokens
    if old is not None and newer is not None and old != newer:
        raise InvalidField(
            "`max_tokens` and `max_completion_tokens` differ; send only `max_completion_tokens`.", param="max_tokens"
        )
    given = old if newer is None else newer
    if request.n_predict is None or request.n_predict == given:
        return given
    if given is not None:
        raise InvalidField("`n_predict` and `max_tokens` differ; send one of them.", param="n_predict")
    return None if request.n_predict < 0 else request.n_predict


def read_stop(request: GenerationRequest) -> tuple[str, ...]:
    if request.stop is None:
        return ()
    return (request.stop,) if isinstance(request.stop, str) else tuple(dict.fromkeys(request.stop))
