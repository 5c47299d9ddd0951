"""Everything that the state of a token depends on beside the tokens before it: two agents with one fingerprint may use
each other's states, and no others may.

Not in it, because it changes how a state is computed and not which one it is: threads, slots, batch sizes, and the size
of the context but for `has_long_rope`. They may change how sums are rounded, as they do within one agent.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from paddler.engine_settings import EngineSettings, LoraAdapter
from paddler.logs import get_logger
from workers.agent.llama import Model, build_info, device_names
from workers.agent.saved_states import BLOCK
from workers.agent.shards import shards_of
from workers.agent.tiers.digests import Digest, seen, sha256_of
from workers.agent.tiers.packing import FORMAT

log = get_logger(__name__)


class Ingredients(Struct, frozen=True, kw_only=True):
    """`files` are the SHA-256 of each of the model's, `adapters` that of each with its scale. `build` names the
    binding, llama.cpp and the instructions of this CPU that it uses, `gpu` what of the model is where, among
    `devices`. `facts` are of the model as it was loaded."""

    files: tuple[str, ...] = ()
    adapters: tuple[tuple[str, float], ...] = ()
    facts: str
    cache_type_k: str
    cache_type_v: str
    flash_attention: str
    has_long_rope: bool
    """llama.cpp has two sets of frequencies for some models (LongRoPE), and takes one for contexts that are longer than
    the model's original one."""
    is_rotated: bool
    """llama.cpp turns keys and values before it quantises them, unless LLAMA_ATTN_ROT_DISABLE is set."""
    gpu: tuple[int, str, int, tuple[float, ...]]
    devices: tuple[str, ...]
    build: str
    block: int = BLOCK
    format: int = FORMAT


def fingerprint_of(ingredients: Ingredients) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(msgspec.json.encode(ingredients)).hexdigest()


def ingredients_of(
    model: Model, settings: EngineSettings, *, context_size: int, environ: Mapping[str, str] = os.environ
) -> Ingredients:
    """All but the digests. `context_size` is that of the context, `environ` what llama.cpp reads itself."""
    original = model.metadata.get(f"{model.metadata.get('general.architecture')}.rope.scaling.original_context_length")
    return Ingredients(
        facts=hashlib.sha256(repr(sorted(model.metadata.items())).encode("utf-8", "surrogatepass")).hexdigest(),
        cache_type_k=settings.cache_type_k,
        cache_type_v=settings.cache_type_v,
        flash_attention=settings.flash_attention,
        has_long_rope=context_size > (int(original) if original else model.context_length),
        is_rotated=environ.get("LLAMA_ATTN_ROT_DISABLE", "0") == "0",
        gpu=(settings.n_gpu_layers, settings.split_mode, settings.main_gpu, settings.tensor_split),
        devices=device_names(),
        build=build_info(),
    )


def seen_before(settings: EngineSettings) -> dict[Path, Digest]:
    """The files of this model and its adapters as they are, to be asked before any of them is loaded. One that is not
    there, or cannot be looked at, is not among them: then loading says why."""
    found: dict[Path, Digest] = {}
    for path in (*shards_of(Path(settings.model_path)), *(Path(one.path) for one in settings.lora_adapters)):
        with contextlib.suppress(OSError):
            found[path] = seen(path)
    return found


def with_digests(
    known: Ingredients,
    files: Sequence[Path],
    adapters: Sequence[LoraAdapter],
    cache: Path,
    before: Mapping[Path, Digest] | None = None,
) -> Ingredients:
    """Reads the files: minutes for large ones that `cache` does not know. Raises `OSError`, also where one is not what
    it was `before`, when the model was loaded: then nobody knows whose states these are."""

    def digest(path: Path) -> str:
        if before is not None and path not in before:
            raise OSError(f"{path} was not there before it was loaded")
        return sha256_of(path, cache, None if before is None else before[path])

    return replace(
        known,
        files=tuple(map(digest, files)),
        adapters=tuple((digest(Path(one.path)), one.scale) for one in adapters),
    )


class Fingerprint:
    """Found out in a thread; None until then, and for good where a file cannot be read."""

    def __init__(self, find: Callable[[], str]) -> None:
        self._value: str | None = None
        self._thread = threading.Thread(target=self._find, args=(find,), name="fingerprint", daemon=True)
        self._thread.start()

    @classmethod
    def of(
        cls,
        model: Model,
        settings: EngineSettings,
        *,
        context_size: int,
        cache: Path,
        before: Mapping[Path, Digest] | None = None,
    ) -> Fingerprint:
        """Of this engine: `context_size` is that of its context, `cache` the folder of downloaded models, `before` what
        `seen_before` said before they were loaded."""
        known = ingredients_of(model, settings, context_size=context_size)
        # The thread must not hold the model: reading takes minutes, and a model that has gone is freed at once.
        files, adapters = shards_of(model.path), settings.lora_adapters
        return cls(lambda: fingerprint_of(with_digests(known, files, adapters, cache, before)))

    @property
    def value(self) -> str | None:
        return self._value

    def wait(self, timeout_s: float) -> str | None:
        """The same, after it is known or the time is over."""
        self._thread.join(timeout_s)
        return self._value

    def _find(self, find: Callable[[], str]) -> None:
        try:
            self._value = find()
        except Exception as error:
            log.warning("the model's files cannot be read: no state is shared or kept on disk", reason=str(error))
