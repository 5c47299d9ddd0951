"""llama.cpp's model as a small class; its context is in `context.py`, its samplers are in `samplers.py`. Only this file
and `mtmd.py` import the binding.

All of it belongs to one thread. Sizes are in tokens.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from paddler.engine import ModelError
from paddler.issues import IssueKind
from workers.agent.binding import declarations
from workers.agent.characters import partial_tokens, tail_of
from workers.agent.tokens import TokenArray

lib: Any = declarations("llama_cpp")
"""The binding."""
LogitArray = NDArray[np.float32]

_KEEPS_TEXT = (lib.LLAMA_VOCAB_TYPE_SPM, lib.LLAMA_VOCAB_TYPE_BPE)
_logger = logging.getLogger("paddler.llama")
_log_levels = {3: logging.WARNING, 4: logging.ERROR}  # GGML_LOG_LEVEL_*; its INFO is our DEBUG
_last_problems: deque[str] = deque(maxlen=3)


class Options(Protocol):
    """Writes settings into llama.cpp's parameters (`options.py`)."""

    def configure(self, params: Any) -> None: ...


class Pooling(IntEnum):
    """How the embedding of a sequence comes from those of its tokens: not at all, or its rank by a classifier."""

    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


def _log(level: int, text: bytes, _user_data: Any) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if level in _log_levels and line:
        _last_problems.append(line)
    if line and _logger.isEnabledFor(python_level := _log_levels.get(level, logging.DEBUG)):
        _logger.log(python_level, "%s", line)


log_callback = lib.llama_log_callback(_log)  # llama.cpp keeps the pointer, so this object must stay


@cache
def _init_library() -> None:
    lib.llama_log_set(log_callback, ctypes.c_void_p(None))
    _load_backends()
    lib.llama_backend_init()


@cache
def _ggml() -> Any:
    """llama.cpp's own libggml, which the binding does not declare. By way of libllama: a wheel has no links, so that
    `libggml.so` is another file than the one libllama has loaded, and would have a registry of its own."""
    folder = Path(lib.__file__).parent / "lib"
    library = ctypes.CDLL(str(folder / f"libllama.{'dylib' if sys.platform == 'darwin' else 'so'}"))
    for name in ("ggml_backend_reg_count", "ggml_backend_dev_count"):
        getattr(library, name).restype = ctypes.c_size_t
    library.ggml_backend_dev_get.argtypes = (ctypes.c_size_t,)
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        getattr(library, name).argtypes = (ctypes.c_void_p,)
        getattr(library, name).restype = ctypes.c_char_p
    library.ggml_backend_dev_type.argtypes = (ctypes.c_void_p,)
    return library


def _load_backends() -> None:
    """A build with GGML_BACKEND_DL, as that of the images, has its backends in files of their own beside the library,
    one for each kind of CPU; llama.cpp would look for them beside the Python and in the working directory. Of those for
    CPUs the best that this one can run is taken. In any other build they are linked, and this does nothing."""
    folder, library = Path(lib.__file__).parent / "lib", _ggml()
    if not library.ggml_backend_reg_count():
        library.ggml_backend_load_all_from_path(ctypes.c_char_p(os.fsencode(folder)))
    if not library.ggml_backend_reg_count():
        raise ModelError(f"llama.cpp has no backend that runs on this CPU: none is built in, none in {folder}")


def build_info() -> str:
    """Which llama.cpp this is, and the CPU features it was built for."""
    _init_library()
    features = [
        part.split("=")[0].strip() for part in lib.llama_print_system_info().decode().split("|") if "= 1" in part
    ]
    binding, version = version_of("llama-cpp-python"), lib.llama_version().decode()
    return f"llama-cpp-python {binding}, llama.cpp {version}, {' '.join(features).replace('CPU : ', '')}"


def device_names() -> tuple[str, ...]:
    """What ggml computes with. Of a CPU its instructions tell (`build_info`), not who made it."""
    _init_library()
    library = _ggml()
    found: list[str] = []
    for number in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(number)
        name = library.ggml_backend_dev_name(device).decode("utf-8", "replace")
        is_cpu = library.ggml_backend_dev_type(device) == 0  # GGML_BACKEND_DEVICE_TYPE_CPU
        what = "" if is_cpu else library.ggml_backend_dev_description(device).decode("utf-8", "replace")
        found.append(f"{name} {what}".strip())
    return tuple(found)


class Model:
    """A loaded GGUF. Raises `ModelError`.

    `on_progress` gets 0..1 while the weights are read; an exception from it stops the loading and comes out.
    """

    def __init__(
        self, path: Path, *, options: Options | None = None, on_progress: Callable[[float], None] | None = None
    ) -> None:
        _init_library()
        check_file(path, "the model")
        _last_problems.clear()
        raised: list[BaseException] = []

        def progress(fraction: float, _user_data: Any) -> bool:
            try:
                if on_progress is not None:
                    on_progress(fraction)
            except BaseException as error:  # must not cross C; raised again below
                raised.append(error)
            return not raised

        params = lib.llama_model_default_params()
        params.n_gpu_layers = 0
        if options is not None:
            options.configure(params)
        params.progress_callback = lib.llama_progress_callback(progress)
        pointer = lib.llama_model_load_from_file(os.fsencode(path), params)
        if raised:
            raise raised[0]
        if not pointer:
            raise ModelError(f"llama.cpp cannot load {path}: {problems()}. Is the file complete and of a known kind?")
        self.pointer = pointer
        self.close = weakref.finalize(self, lib.llama_model_free, pointer)
        self.path = path
        self.metadata = _metadata(pointer)
        if lib.llama_model_has_encoder(pointer):
            raise ModelError(f"{path} has an encoder of its own (as T5 has), which is not served: choose another model")
        if lib.llama_model_is_diffusion(pointer):
            raise ModelError(f"{path} generates no text token by token (a diffusion model): choose a chat model")
        self.is_causal = generates_text(self.metadata)
        """A token's state depends on those before it alone: it can generate, and an input can be computed in parts."""
        self.is_cuttable: bool = not (lib.llama_model_is_recurrent(pointer) or lib.llama_model_is_hybrid(pointer))
        """Its memory has a cell for every token, so that a part of a sequence can be kept or given away."""
        self.has_window: bool = lib.llama_model_n_swa(pointer) > 0
        """Some layers look back over a window only, and give away the cells that have left it."""
        self.context_length: int = lib.llama_model_n_ctx_train(pointer)
        self.embedding_size: int = lib.llama_model_n_embd_out(pointer)
        self.own_pooling = _pooling(self.metadata)
        self.chat_template = _template(pointer, None)
        self.rerank_template = _template(pointer, b"rerank")
        self.vocab: Any = lib.llama_model_get_vocab(pointer)
        self.vocab_size: int = lib.llama_vocab_n_tokens(self.vocab)
        self.bos: int = lib.llama_vocab_bos(self.vocab)
        self.eos: int = lib.llama_vocab_eos(self.vocab)
        self.sep: int = lib.llama_vocab_sep(self.vocab)
        self.adds_bos: bool = lib.llama_vocab_get_add_bos(self.vocab)
        self.adds_eos: bool = lib.llama_vocab_get_add_eos(self.vocab)
        self.adds_sep: bool = lib.llama_vocab_get_add_sep(self.vocab)
        self.keeps_text: bool = lib.llama_vocab_type(self.vocab) in _KEEPS_TEXT
        """No text of its inputs is lost: a long text cannot be one unknown token, or a space."""
        self.pieces = self._all_pieces()
        """Output bytes of every token; control tokens have none."""
        self.max_piece = max(map(len, self.pieces))
        self.end_tokens = frozenset(
            token for token in range(self.vocab_size) if lib.llama_vocab_is_eog(self.vocab, token)
        )
        """Tokens that end the output."""
        self.candidates = Candidates(self.vocab_size)
        self.silent = tuple(
            token for token, piece in enumerate(self.pieces) if not piece and token not in self.end_tokens
        )
        """Tokens that neither give text nor end it."""
        self.partial = partial_tokens(self.pieces)
        """Tokens that are not whole characters."""
        self.broken = np.array([one for one in self.partial if tail_of(self.pieces[one]) is None], np.int64)
        """Those of them that begin none."""
        self.suppressed = _suppressed(self.vocab)
        """Tokens the model's author forbids as output."""

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of a token; with `special` control tokens are written out."""
        if token < 0:
            return b""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            written = lib.llama_token_to_piece(self.vocab, token, buffer, size, 0, special)
            if written >= 0:
                return buffer.raw[:written]
            size = -written

    def _all_pieces(self) -> list[bytes]:
        """As `piece`, with one buffer for all of them: an agent waits for it at its start."""
        size = 64
        buffer = ctypes.create_string_buffer(size)
        ask, vocab = lib.llama_token_to_piece, self.vocab
        written = (ask(vocab, token, buffer, size, 0, False) for token in range(self.vocab_size))
        return [buffer.raw[:number] if number >= 0 else self.piece(token) for token, number in enumerate(written)]

    def tokenize(self, text: str, *, adds_special: bool = False, has_control: bool = True) -> TokenArray:
        """Tokens of `text`, where control tokens written out count as such, unless it has none; adds none of its own,
        unless asked for those that the model wants at beginning and end."""
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        while True:
            tokens = np.empty(size, np.int32)
            into = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
            written = lib.llama_tokenize(self.vocab, data, len(data), into, size, adds_special, has_control)
            if written >= 0:
                return tokens[:written].copy()
            size = -written


class Candidates:
    """Room for every token of a vocabulary, filled through a numpy view."""

    def __init__(self, vocab_size: int) -> None:
        self.rows = np.zeros(vocab_size, np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)]))
        data = pointer_to(self.rows, lib.llama_token_data)
        self.struct = lib.llama_token_data_array(data=data, size=0, selected=-1, sorted=False)


def generates_text(metadata: Mapping[str, str]) -> bool:
    """Whether the model predicts the next token: embedding and diffusion models look both ways."""
    return metadata.get(f"{metadata.get('general.architecture')}.attention.causal") != "false"


def _pooling(metadata: Mapping[str, str]) -> Pooling | None:
    """None for a model that names none: it was not made for embeddings, or its converter did not know."""
    own = metadata.get(f"{metadata.get('general.architecture')}.pooling_type", "0")
    return Pooling(int(own)) if own != "0" and own in {str(pooling.value) for pooling in Pooling} else None


def _template(model: Any, name: bytes | None) -> str | None:
    template = lib.llama_model_chat_template(model, name)
    return template.decode("utf-8", "replace") if template else None


def max_sequences() -> int:
    return lib.llama_max_parallel_sequences()


def pointer_to(array: NDArray[Any], ctype: Any) -> Any:
    return cast(Any, array.ctypes).data_as(ctypes.POINTER(ctype))


def forget_problems() -> None:
    """Before a call whose failure `problems` is to explain."""
    _last_problems.clear()


def problems() -> str:
    """What llama.cpp said last of what went wrong."""
    return "; ".join(line.removeprefix("llama_model_load: ") for line in _last_problems) or "it gives no reason"


def check_file(path: Path, what: str, *, kind: IssueKind | None = None) -> None:
    """Raises `ModelError` unless it begins as a GGUF does; `what` names its place in the settings. `kind` is that of
    the error, if the file is not the model."""
    at = "" if kind is None else str(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        raise ModelError(
            f"cannot read {what} {path}: {error.strerror}. Give the path of a GGUF file",
            kind=kind or ("ModelFileDoesNotExist" if is_missing else "ModelCannotBeLoaded"),
            path=at,
        ) from error
    if magic != b"GGUF":
        raise ModelError(
            f"{path} is no GGUF file (it begins with {magic!r}): download it again or convert it to GGUF",
            kind=kind or "ModelCannotBeLoaded",
            path=at,
        )


def _metadata(model: Any) -> dict[str, str]:
    def read(function: Any, index: int) -> str:
        size = 256
        while True:
            buffer = ctypes.create_string_buffer(size)
            length = function(model, index, buffer, size)
            if length < size:
                return buffer.value.decode("utf-8", "replace")
            size = length + 1

    return {
        read(lib.llama_model_meta_key_by_index, index): read(lib.llama_model_meta_val_str_by_index, index)
        for index in range(lib.llama_model_meta_count(model))
    }


def _suppressed(vocab: Any) -> tuple[int, ...]:
    count = ctypes.c_int32(0)
    tokens = lib.llama_vocab_get_suppress_tokens(vocab, ctypes.byref(count))
    return tuple(tokens[index] for index in range(count.value))
