"""llama.cpp's C API as two small classes; its samplers are in `samplers.py`. Only this file and `mtmd.py` import the
binding.

`Model` (weights, vocabulary, metadata) -> `Context` (KV cache, batch, decode, logits).
All of it belongs to one thread, except `Context.interrupt`. Sizes are in tokens.
"""

from __future__ import annotations

import ctypes
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from paddler.engine import ModelError
from paddler.issues import IssueKind
from workers.agent.characters import partial_tokens, tail_of
from workers.agent.tokens import TokenArray

# libgomp reads it when the library loads and spins at barriers for ever without it: with one busy neighbour
# two threads on two cores then fall from 97 to 7.5 tokens/s, with it to 33; idle it costs 4 %.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp  # after the environment above

lib: Any = llama_cpp
"""The binding. Its annotations name C types where ctypes returns Python's, so they are not used."""
LogitArray = NDArray[np.float32]

_UBATCH = 512
_KEEPS_TEXT = (lib.LLAMA_VOCAB_TYPE_SPM, lib.LLAMA_VOCAB_TYPE_BPE)
_logger = logging.getLogger("paddler.llama")
_log_levels = {3: logging.WARNING, 4: logging.ERROR}  # GGML_LOG_LEVEL_*; its INFO is our DEBUG
_last_problems: deque[str] = deque(maxlen=3)


class Options(Protocol):
    """Writes settings into llama.cpp's parameters (`options.py`)."""

    def configure(self, params: Any) -> None: ...


class AttachedOptions(Options, Protocol):
    """The same for a context, with what is added to one that is made already. Raises `ModelError`."""

    def attach(self, context: Any) -> None: ...


class DecodeError(RuntimeError):
    """llama.cpp failed in a way that no retry mends; the context must not be used any more."""


class Pooling(IntEnum):
    """How the embedding of a sequence comes from those of its tokens: not at all, or its rank by a classifier."""

    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


class Decoded(IntEnum):
    OK = 0
    NO_ROOM = 1
    """No free cells in the KV cache; nothing was computed."""
    ABORTED = 2
    """Interrupted; part of the batch may be in the KV cache."""


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
    lib.llama_backend_init()


def build_info() -> str:
    """Which llama.cpp this is, and the CPU features it was built for."""
    features = [
        part.split("=")[0].strip() for part in lib.llama_print_system_info().decode().split("|") if "= 1" in part
    ]
    version = lib.llama_version().decode()
    return f"llama-cpp-python {lib.__version__}, llama.cpp {version}, {' '.join(features).replace('CPU : ', '')}"


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
        self.pieces = [self.piece(token) for token in range(self.vocab_size)]
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


class Batch:
    """The tokens of one decode, filled through numpy views so that no token costs a ctypes access."""

    def __init__(self, max_tokens: int) -> None:
        self.tokens = np.zeros(max_tokens, np.int32)
        self.positions = np.zeros(max_tokens, np.int32)
        self.sequences = np.zeros(max_tokens, np.int32)
        self.outputs = np.zeros(max_tokens, np.int8)
        self._ones = np.ones(max_tokens, np.int32)
        stride, base = self.sequences.itemsize, self.sequences.ctypes.data
        self._pointers = np.arange(base, base + stride * max_tokens, stride, dtype=np.uintp)
        self._range = np.arange(max_tokens, dtype=np.int32)
        self.struct = lib.llama_batch(
            token=pointer_to(self.tokens, ctypes.c_int32),
            pos=pointer_to(self.positions, ctypes.c_int32),
            n_seq_id=pointer_to(self._ones, ctypes.c_int32),
            seq_id=pointer_to(self._pointers, ctypes.POINTER(ctypes.c_int32)),
            logits=pointer_to(self.outputs, ctypes.c_int8),
        )
        self.size = 0

    def clear(self) -> None:
        self.size = 0

    def add(self, tokens: TokenArray, position: int, sequence: int, *, wants_logits: bool) -> int:
        """Append consecutive tokens of a sequence, the first at `position`; logits of the last one if wanted.
        Returns the last one's index in the batch. The caller keeps within the size."""
        start, end = self.size, self.size + len(tokens)
        self.tokens[start:end] = tokens
        np.add(self._range[: end - start], position, out=self.positions[start:end])
        self.sequences[start:end] = sequence
        self.outputs[start:end] = 0
        self.outputs[end - 1] = wants_logits
        self.size = end
        return end - 1


class Context:
    """KV cache and compute buffers for `num_sequences` sequences that share `num_cells` cells (unified KV)."""

    def __init__(
        self,
        model: Model,
        *,
        num_sequences: int,
        context_size: int,
        max_batch: int,
        num_threads: int,
        pooling: Pooling | None = None,
        options: AttachedOptions | None = None,
        is_undivided: bool = False,
    ) -> None:
        """`num_sequences` may be more than are ever in one batch: each costs a row of logits, twice. With `pooling`
        each token of a batch does, and `embedding` tells what comes of a sequence, or `token_embeddings` of each. With
        `is_undivided` every batch is computed in one piece, as tokens that attend to later ones must be; that costs
        buffers for the largest."""
        self._model = model  # must outlive the context
        params = lib.llama_context_default_params()
        params.n_ctx = context_size
        params.n_batch = max_batch
        params.n_ubatch = max_batch if is_undivided else min(max_batch, _UBATCH)
        params.n_seq_max = num_sequences
        params.n_outputs_max = num_sequences  # the default reserves logits for every token of a batch
        if pooling is not None:
            params.embeddings = True
            params.pooling_type = pooling
            # Each part of a batch that llama.cpp computes by itself overwrites what the one before has pooled.
            params.n_outputs_max = params.n_ubatch = max_batch
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = num_threads
        params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        if options is not None:
            options.configure(params)
        # Asked after every graph node. A Python callback would take the GIL about 1,000 times a decode; strlen
        # answers natively: 0 while the flag is an empty string, 1 after `interrupt` wrote a character.
        self._flag = ctypes.create_string_buffer(2)
        params.abort_callback = _strlen()
        params.abort_callback_data = ctypes.addressof(self._flag)
        _last_problems.clear()
        pointer = lib.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise ModelError(
                f"llama.cpp cannot make a context of {context_size} tokens: {problems()}. Choose a smaller one",
                kind="SlotCannotStart",
            )
        self._pointer: Any = pointer
        # The finalizer holds the model: of garbage in a cycle the model's might come first, and `llama_free` reads it.
        self.close = weakref.finalize(self, _free, pointer, model)
        if options is not None:
            options.attach(pointer)
        self._memory: Any = lib.llama_get_memory(pointer)
        self.num_cells: int = lib.llama_n_ctx(pointer)
        self.max_batch: int = lib.llama_n_batch(pointer)
        self.batch = Batch(self.max_batch)
        self._pooling = pooling
        self._num_outputs = 0

    def decode(self) -> Decoded:
        """Compute `batch`; afterwards `logits` has one row for every token that wanted them, in batch order.
        Raises `DecodeError`."""
        if self._pooling is not None:
            self.batch.outputs[: self.batch.size] = 1
        return self._compute(self.batch)

    def decode_rows(self, batch: Batch, *, is_causal: bool) -> Decoded:
        """As `decode`, for a batch of what stands in place of tokens. Not `is_causal`: those of a sequence attend to
        each other in both directions."""
        if is_causal:
            return self._compute(batch)
        lib.llama_set_causal_attn(self._pointer, False)
        try:
            return self._compute(batch)
        finally:
            lib.llama_set_causal_attn(self._pointer, True)

    def _compute(self, batch: Batch) -> Decoded:
        batch.struct.n_tokens = batch.size
        self._num_outputs = int(np.count_nonzero(batch.outputs[: batch.size]))
        code = lib.llama_decode(self._pointer, batch.struct)
        if code == Decoded.OK:
            lib.llama_synchronize(self._pointer)
            return Decoded.OK
        if code == Decoded.ABORTED:
            self._flag.value = b""
        if code not in (Decoded.NO_ROOM, Decoded.ABORTED):
            raise DecodeError(f"llama_decode failed with code {code} on {batch.size} tokens: {problems()}")
        return Decoded(code)

    def logits(self) -> LogitArray:
        """View of the logits, shape (outputs, vocabulary); writable, valid until the next decode."""
        return np.ctypeslib.as_array(lib.llama_get_logits(self._pointer), (self._num_outputs, self._model.vocab_size))

    def embedding(self, sequence: int) -> LogitArray:
        """What the last decode pooled from those tokens of the sequence that were in its batch; a copy. A rank is the
        first of the classifier's outputs."""
        pointer = lib.llama_get_embeddings_seq(self._pointer, sequence)
        size = 1 if self._pooling is Pooling.RANK else self._model.embedding_size
        return np.ctypeslib.as_array(pointer, (size,)).copy()

    def token_embeddings(self, start: int, end: int) -> LogitArray:
        """Those of some tokens of the last batch, without pooling, one a row; a copy."""
        pointer = lib.llama_get_embeddings(self._pointer)
        return np.ctypeslib.as_array(pointer, (self._num_outputs, self._model.embedding_size))[start:end].copy()

    def remove(self, sequence: int, start: int = 0) -> bool:
        """Free the cells of a sequence from position `start` on. False when the model's memory cannot drop a
        part of a sequence (recurrent); dropping all of it never fails."""
        return lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def shift(self, sequence: int, start: int, end: int) -> None:
        """Free the cells of positions `start` to `end` and move what follows up to `start`. Only with `can_shift`, and
        only if no other sequence shares a cell from `end` on: the position is the cell's."""
        lib.llama_memory_seq_rm(self._memory, sequence, start, end)
        lib.llama_memory_seq_add(self._memory, sequence, end, -1, start - end)

    def can_shift(self) -> bool:
        """Whether positions can be moved."""
        return self._model.is_cuttable and lib.llama_memory_can_shift(self._memory)

    def copy(self, source: int, target: int, end: int) -> None:
        """Let `target` share the cells of `source` up to position `end`, computing and copying nothing."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def extent(self, sequence: int) -> tuple[int, int]:
        """First and last position of a sequence whose cells are all there, (-1, -1) for an empty one."""
        return (
            lib.llama_memory_seq_pos_min(self._memory, sequence),
            lib.llama_memory_seq_pos_max(self._memory, sequence),
        )

    def can_share(self) -> bool:
        """Whether sequences may share the cells of a common beginning. Computes a few tokens; leaves the cache empty.

        Not with recurrent memory, whose state is that after the last token and cannot be cut back, and not with memory
        that llama.cpp cannot shift: its cells are no single positions (compressed rows)."""
        if not self._model.is_cuttable or not lib.llama_memory_can_shift(self._memory):
            return False
        for position in range(2):
            self.batch.clear()
            self.batch.add(np.zeros(1, np.int32), position, 0, wants_logits=True)
            if self.decode() is not Decoded.OK:
                return False
        is_cut = self.remove(0, 1) and self.extent(0) == (0, 0)
        self.clear()
        return is_cut

    def clear(self) -> None:
        lib.llama_memory_clear(self._memory, False)

    def interrupt(self) -> None:
        """Abort the decode that runs now, else the next one. From any thread; CPU only."""
        self._flag.value = b"1"

    def forget_interrupt(self) -> None:
        """No decode is to be aborted any more."""
        self._flag.value = b""

    def sample(self, sampler: Any, index: int) -> int:
        """Let llama.cpp's sampler choose from the logits of the token at `index` of the last batch, and accept it."""
        return lib.llama_sampler_sample(sampler, self._pointer, index)


class Candidates:
    """Room for every token of a vocabulary, filled through a numpy view."""

    def __init__(self, vocab_size: int) -> None:
        self.rows = np.zeros(vocab_size, np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)]))
        data = pointer_to(self.rows, lib.llama_token_data)
        self.struct = lib.llama_token_data_array(data=data, size=0, selected=-1, sorted=False)


def _free(context: Any, _model: Model) -> None:
    lib.llama_free(context)


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


@cache
def _strlen() -> Any:
    return lib.ggml_abort_callback(("strlen", ctypes.CDLL(None)))


def pointer_to(array: NDArray[Any], ctype: Any) -> Any:
    return cast(Any, array.ctypes).data_as(ctypes.POINTER(ctype))


def forget_problems() -> None:
    """Before a call whose failure `problems` is to explain."""
    _last_problems.clear()


def problems() -> str:
    """What llama.cpp said last of what went wrong."""
    return "; ".join(line.removeprefix("llama_model_load: ") for line in _last_problems) or "it gives no reason"


def check_file(path: Path, what: str) -> None:
    """Raises `ModelError` unless it begins as a GGUF does; `what` names its place in the settings."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        kind: IssueKind = "ModelFileDoesNotExist" if isinstance(error, FileNotFoundError) else "ModelCannotBeLoaded"
        raise ModelError(
            f"cannot read {what} {path}: {error.strerror}. Give the path of a GGUF file", kind=kind
        ) from error
    if magic != b"GGUF":
        raise ModelError(f"{path} is no GGUF file (it begins with {magic!r}): download it again or convert it to GGUF")


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
