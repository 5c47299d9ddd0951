"""llama.cpp's context as a small class: KV cache, batch, decode, logits.

All of it belongs to one thread, except `Context.interrupt`. Sizes are in tokens.
"""

from __future__ import annotations

import ctypes
import weakref
from enum import IntEnum
from functools import cache
from typing import Any, Protocol

import numpy as np

from paddler.clock import SystemClock
from paddler.engine import ModelError
from workers.agent.crew import Crew
from workers.agent.llama import LogitArray, Model, Options, Pooling, forget_problems, lib, pointer_to, problems
from workers.agent.saved_states import State
from workers.agent.tokens import TokenArray

_UBATCH = 512


class AttachedOptions(Options, Protocol):
    """The same for a context, with what is added to one that is made already. Raises `ModelError`."""

    def attach(self, context: Any) -> None: ...


class DecodeError(RuntimeError):
    """llama.cpp failed in a way that no retry mends; the context must not be used any more."""


class Decoded(IntEnum):
    OK = 0
    NO_ROOM = 1
    """No free cells in the KV cache; nothing was computed."""
    ABORTED = 2
    """Interrupted; part of the batch may be in the KV cache."""


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
        forget_problems()
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
        self._clock = SystemClock()
        self._crew = Crew(num_threads, self._set_num_threads)

    def _set_num_threads(self, number: int) -> None:
        lib.llama_set_n_threads(self._pointer, number, number)

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
        begin = self._clock.monotonic()
        code = lib.llama_decode(self._pointer, batch.struct)
        if code == Decoded.OK:
            lib.llama_synchronize(self._pointer)
        self._crew.computed(self._clock.monotonic() - begin)
        if code == Decoded.OK:
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

    def num_bytes(self, sequence: int) -> int:
        """What the state of a sequence takes."""
        return lib.llama_state_seq_get_size(self._pointer, sequence)

    def save(self, sequence: int, start: int, end: int, scratch: int) -> State | None:
        """The state of the cells of a sequence from position `start` to `end`, as bytes for `restore`; `scratch` is an
        empty sequence. None when llama.cpp does not give it."""
        lib.llama_memory_seq_cp(self._memory, sequence, scratch, start, end)
        state = np.empty(lib.llama_state_seq_get_size(self._pointer, scratch), np.uint8)
        size: int = lib.llama_state_seq_get_data(
            self._pointer, pointer_to(state, ctypes.c_uint8), state.nbytes, scratch
        )
        self.remove(scratch)
        return state if size == state.nbytes else None

    def restore(self, sequence: int, state: State, start: int, end: int, scratch: int) -> bool:
        """Give the sequence, which ends at position `start`, the cells from there to `end` of a saved state. It takes
        room for all of that for a moment. False: llama.cpp refuses it, and the sequence is as it was."""
        size: int = lib.llama_state_seq_set_data(
            self._pointer, pointer_to(state, ctypes.c_uint8), state.nbytes, scratch
        )
        first, last = self.extent(scratch)
        is_whole = size == state.nbytes and 0 <= first <= start and last >= end - 1
        if is_whole:
            lib.llama_memory_seq_cp(self._memory, scratch, sequence, start, end)
        self.remove(scratch)
        return is_whole

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


def _free(context: Any, _model: Model) -> None:
    lib.llama_free(context)


@cache
def _strlen() -> Any:
    return lib.ggml_abort_callback(("strlen", ctypes.CDLL(None)))
