"""The JSON of a desired state: as an operator gives it, as a file has it, as Redis keeps it.

Given by an operator: unknown fields are refused, and so are missing ones of Paddler 4.1 where the whole is given. What
Redis keeps may come from a newer version: unknown fields are skipped there.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct, structs

from paddler.desired.checks import check_state
from paddler.desired.schema import NULLABLE, OURS, AgentDesiredState, BalancerDesiredState, InferenceParameters
from paddler.errors import InvalidField
from paddler.fields import invalid_field

MAX_STATE = 256 * 1024
"""Bytes of a document."""


def _made_of(cls: type[Struct], name: str, *, is_whole: bool, parameters: type[Struct] | None = None) -> type[Struct]:
    """The same fields with unknown ones forbidden; with `is_whole` those of Paddler 4.1 are required."""
    fields: list[Any] = []
    for field in structs.fields(cls):
        type_ = parameters if parameters is not None and field.name == "inference_parameters" else field.type
        if is_whole and field.name not in OURS | NULLABLE:
            fields.append((field.name, type_))
        elif field.name == "inference_parameters":
            fields.append((field.name, type_, msgspec.field(default_factory=cast("Any", type_))))
        else:
            fields.append((field.name, type_, field.default))
    made = msgspec.defstruct(name, fields, kw_only=True, frozen=True, forbid_unknown_fields=True)
    made.__doc__ = cls.__doc__
    return made


_Parameters = _made_of(InferenceParameters, "WholeInferenceParameters", is_whole=True)
_SomeParameters = _made_of(InferenceParameters, "SomeInferenceParameters", is_whole=False)
WHOLE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
    _made_of(BalancerDesiredState, "WholeDesiredState", is_whole=True, parameters=_Parameters)
)
_SOME = _made_of(BalancerDesiredState, "SomeDesiredState", is_whole=False, parameters=_SomeParameters)


class _Aliases(Struct):
    aliases: tuple[str, ...] = ()


_aliases_decoder = msgspec.json.Decoder(_Aliases)
_decoder = msgspec.json.Decoder(BalancerDesiredState)
_encode = msgspec.json.Encoder().encode
_DEFAULTS: dict[str, Any] = msgspec.to_builtins(BalancerDesiredState())


def read_state(body: bytes) -> BalancerDesiredState:
    """A whole document. Raises `InvalidField`."""
    _check_size(body)
    try:
        return _checked(WHOLE.decode(body))
    except msgspec.ValidationError as error:
        raise invalid_field(str(error), WHOLE.type, {}, "") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error) from None


def state_from(document: object, at: str = "") -> BalancerDesiredState:
    """Of decoded JSON in which fields may be missing, which then have their defaults; `at` is where it stands. Raises
    `InvalidField`."""
    try:
        return _checked(msgspec.convert(document, _SOME))
    except msgspec.ValidationError as error:
        raise invalid_field(str(error), _SOME, {}, at) from None


def patched(state: BalancerDesiredState, body: bytes) -> BalancerDesiredState:
    """`state` with a JSON merge patch (RFC 7396): what it does not name stays, null is the default again. Raises
    `InvalidField`."""
    return state_from(_merge(document_of(state), read_patch(body)))


def read_patch(body: bytes) -> dict[str, Any]:
    """Raises `InvalidField`."""
    _check_size(body)
    try:
        patch = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _no_json(error) from None
    if not isinstance(patch, dict):
        raise InvalidField("A patch is a JSON object with the fields to change.")
    return cast("dict[str, Any]", patch)


def _merge(target: object, patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7396, section 2; `body` of a request is what bounds the depth."""
    merged: dict[str, Any] = dict(cast("dict[str, Any]", target)) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            merged[name] = _merge(merged.get(name), cast("dict[str, Any]", value))
        else:
            merged[name] = value
    return merged


def document_of(state: BalancerDesiredState | AgentDesiredState) -> dict[str, Any]:
    """As builtins: all that Paddler 4.1 has, and of ours what is not as by default, so that strict clients of 4.1 can
    read it."""
    found: dict[str, Any] = msgspec.to_builtins(state)
    found["inference_parameters"] = _without_defaults(found["inference_parameters"], _DEFAULTS["inference_parameters"])
    return _without_defaults(found, _DEFAULTS)


def encode_state(state: BalancerDesiredState | AgentDesiredState) -> bytes:
    return _encode(document_of(state))


def decode_state(data: bytes) -> BalancerDesiredState:
    """What `encode_state` of this or another version has written. Raises `msgspec.MsgspecError`."""
    return _decoder.decode(data)


def aliases_in(data: bytes) -> tuple[str, ...]:
    """Of what `encode_state` has written: also where a newer version has a model that this one cannot read."""
    try:
        return _aliases_decoder.decode(data).aliases
    except msgspec.MsgspecError:
        return ()


def _without_defaults(found: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in OURS or value != defaults[name]}


def _checked(found: Struct) -> BalancerDesiredState:
    state = msgspec.convert(msgspec.to_builtins(found), BalancerDesiredState)
    check_state(state)
    return state


def _check_size(body: bytes) -> None:
    if len(body) > MAX_STATE:
        raise InvalidField(f"A desired state has at most {MAX_STATE} bytes, not {len(body)}.")


def _no_json(error: Exception) -> InvalidField:
    what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return InvalidField(f"The desired state is no valid JSON: {what}.")
