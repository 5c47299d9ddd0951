"""The binding's other half: libmtmd, which makes of an image what a model reads in place of tokens.

`Projector` (the vision encoder of a model, from a file of its own) -> `ImageChunk` (an image, or a tile of one) -> rows
of embeddings -> `RowBatch`. Images come as pixels: libmtmd's own reader would hand what it does not know to ffmpeg.
`read` may run beside `encode` and beside a decode; `encode` is called by one thread.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paddler.engine import ModelError
from paddler.issues import IssueKind
from workers.agent.binding import declarations
from workers.agent.context import Batch
from workers.agent.llama import LogitArray, Model, check_file, forget_problems, lib, log_callback, pointer_to, problems
from workers.agent.tokens import TokenArray

mtmd: Any = declarations("mtmd_cpp")

Pixels = NDArray[np.uint8]
"""Shape (height, width, 3), RGB."""
Rows = LogitArray
"""Shape (tokens, width of the model's input): what stands in place of tokens."""

GRID_PARTS = 4
"""Numbers in a position of a model that counts rows and columns of an image (M-RoPE)."""


KIND: IssueKind = "MultimodalProjectionCannotBeLoaded"


class ImageError(Exception):
    """libmtmd cannot read or encode an image."""


class ImageChunk:
    """An image, or one of the tiles that its model cuts it into: `num_tokens` cells of the KV cache. What follows is at
    `num_positions` behind its first: as many, unless the model counts rows and columns. `image` is the number of the
    image in its prompt. `chunks` keeps the memory."""

    def __init__(self, chunks: Any, pointer: int) -> None:
        self._chunks = chunks
        self.pointer = pointer
        self.num_tokens: int = mtmd.mtmd_input_chunk_get_n_tokens(pointer)
        self.num_positions: int = mtmd.mtmd_input_chunk_get_n_pos(pointer)
        self.image = int(mtmd.mtmd_input_chunk_get_id(pointer))


class _Chunks:
    def __init__(self) -> None:
        self.pointer: Any = mtmd.mtmd_input_chunks_init()
        weakref.finalize(self, mtmd.mtmd_input_chunks_free, self.pointer).atexit = False


class Projector:
    """The vision encoder that belongs to `model`. Raises `ModelError`.

    `is_causal`: the model attends to an image as to text, and may be given it in pieces. `has_grid`: positions inside
    of an image have `GRID_PARTS` numbers. `marker` is the text that stands for an image in a prompt; no client can
    know it."""

    def __init__(self, path: Path, model: Model, *, num_threads: int, uses_gpu: bool = False) -> None:
        check_file(path, "the multimodal projection", kind=KIND)
        mtmd.mtmd_helper_log_set(log_callback, ctypes.c_void_p(None))
        forget_problems()
        self.marker = f"<__image_{secrets.token_hex(16)}__>"
        self._marker = self.marker.encode()
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = uses_gpu
        params.print_timings = False
        params.n_threads = num_threads
        params.media_marker = self._marker
        pointer = mtmd.mtmd_init_from_file(os.fsencode(path), model.pointer, params)
        if not pointer:
            raise ModelError(
                f"llama.cpp cannot use the multimodal projection {path} with {model.path.name}: {problems()}. "
                "Give the file that belongs to this model, often called mmproj",
                kind=KIND,
                path=str(path),
            )
        self._model = model  # must outlive the projector
        self._pointer: Any = pointer
        self.close = weakref.finalize(self, mtmd.mtmd_free, pointer)
        self.close.atexit = False  # an encoding may be under way then
        if not mtmd.mtmd_support_vision(pointer):
            self.close()
            raise ModelError(
                f"the multimodal projection {path} reads no images, only audio, which Paddler does not serve",
                kind=KIND,
                path=str(path),
            )
        self.is_causal = not mtmd.mtmd_decode_use_non_causal(pointer, None)
        self.has_grid: bool = mtmd.mtmd_decode_use_mrope(pointer)
        self.width: int = lib.llama_model_n_embd_inp(model.pointer)

    def read(self, text: str, images: Sequence[Pixels]) -> list[TokenArray | ImageChunk]:
        """The prompt in order: tokens, and the chunks of each image where `text` has the marker, with the tokens that
        its model wants around them. Adds no token at beginning and end. Raises `ImageError`."""
        data = text.encode("utf-8", "replace")
        bitmaps = (ctypes.c_void_p * len(images))()
        chunks = _Chunks()
        try:
            for number, pixels in enumerate(images):
                height, width, _ = pixels.shape
                pixels = np.ascontiguousarray(pixels)
                bitmaps[number] = mtmd.mtmd_bitmap_init(width, height, pointer_to(pixels, ctypes.c_uint8))
                mtmd.mtmd_bitmap_set_id(bitmaps[number], str(number).encode())
            whole = mtmd.mtmd_input_text(text=data, text_len=len(data), add_special=False, parse_special=True)
            code = mtmd.mtmd_tokenize(self._pointer, chunks.pointer, ctypes.byref(whole), bitmaps, len(images))
        finally:
            for bitmap in bitmaps:
                mtmd.mtmd_bitmap_free(bitmap)
        if code != 0:
            raise ImageError(f"llama.cpp cannot read the images (code {code}): {problems()}")
        return [self._part(chunks, number) for number in range(mtmd.mtmd_input_chunks_size(chunks.pointer))]

    def _part(self, chunks: _Chunks, number: int) -> TokenArray | ImageChunk:
        pointer = mtmd.mtmd_input_chunks_get(chunks.pointer, number)
        if mtmd.mtmd_input_chunk_get_type(pointer) != mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
            return ImageChunk(chunks, pointer)
        size = ctypes.c_size_t()
        tokens = mtmd.mtmd_input_chunk_get_tokens_text(pointer, ctypes.byref(size))
        return np.array(tokens[: size.value], np.int32)

    def encode(self, chunk: ImageChunk) -> Rows:
        """What the model reads in place of the tokens of this chunk. Takes as long as it takes: milliseconds to many
        seconds. Raises `ImageError`."""
        if mtmd.mtmd_encode_chunk(self._pointer, chunk.pointer) != 0:
            raise ImageError(f"llama.cpp cannot encode the image: {problems()}")
        rows = mtmd.mtmd_get_output_embd(self._pointer)
        return np.ctypeslib.as_array(rows, (chunk.num_tokens, self.width)).copy()

    def positions(self, chunk: ImageChunk, start: int) -> TokenArray:
        """Where its tokens are, the first at position `start`; shape (`GRID_PARTS` or 1, tokens)."""
        if not self.has_grid:
            return np.arange(start, start + chunk.num_tokens, dtype=np.int32)[None]
        found = (mtmd.mtmd_decoder_pos * chunk.num_tokens)()
        tokens = mtmd.mtmd_input_chunk_get_tokens_image(chunk.pointer)
        mtmd.mtmd_helper_image_get_decoder_pos(tokens, start, found)
        t, x, y, z = np.frombuffer(found, np.int32).reshape(-1, GRID_PARTS).T
        return np.stack([t, y, x, z])


class RowBatch(Batch):
    """The rows of one decode, of at most `max_tokens` tokens. Its `tokens` are not looked at."""

    def __init__(self, max_tokens: int, projector: Projector) -> None:
        super().__init__(max_tokens)
        self._rows = np.zeros((max_tokens, projector.width), np.float32)
        self._parts: list[TokenArray] = []
        self._flat = np.zeros(max_tokens * (GRID_PARTS if projector.has_grid else 1), np.int32)
        self.struct = lib.llama_batch(
            embd=pointer_to(self._rows, ctypes.c_float),
            pos=pointer_to(self._flat, ctypes.c_int32),
            n_seq_id=self.struct.n_seq_id,
            seq_id=self.struct.seq_id,
            logits=self.struct.logits,
        )

    def clear(self) -> None:
        super().clear()
        self._parts.clear()

    def add_rows(self, rows: Rows, positions: TokenArray, sequence: int, *, wants_logits: bool) -> int:
        """Append rows of a sequence, at `positions` of shape (parts, tokens); else as `add`."""
        start, end = self.size, self.size + len(rows)
        self._rows[start:end] = rows
        self.sequences[start:end] = sequence
        self.outputs[start:end] = 0
        self.outputs[end - 1] = wants_logits
        self._parts.append(positions)
        # llama.cpp wants all first numbers, then all second ones: where they lie depends on how many tokens there are.
        flat = np.concatenate(self._parts, axis=1).reshape(-1)
        self._flat[: len(flat)] = flat
        self.size = end
        return end - 1
