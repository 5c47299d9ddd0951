"""Whether llama.cpp survives a file: a child process reads it first, because a bad one can end the process that does.

llama.cpp asserts much of what a file says of itself (`block_count` of 2**32-1, an epsilon that is no number), and an
assertion ends the process. The first look allocates no weights of the model and reads none, so it takes 0.15 s of any
one beside the start of Python: metadata, vocabulary, tensor table, the graph of a context. Adapters and a multimodal
projection are small beside it and are opened as the engine does. Only if it dies of that, or if an earlier start was
never done (`mark.py`), a second one loads the weights, computes a token on the CPU and encodes an image: what that
survives is served.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, structs

from paddler import logs
from paddler.engine import ModelError
from paddler.engine_settings import EngineSettings
from paddler.issues import IssueKind
from paddler.logs import get_logger

if TYPE_CHECKING:
    from workers.agent.llama import Model

log = get_logger(__name__)

TIMEOUT_S = 120.0
FULL_TIMEOUT_S = 1800.0
MAX_MEMORY = 8 << 30
"""Bytes a first look may take: a length of 2**40 in a header must not make the kernel end other processes. The
vocabulary of a large model is some hundred MB."""
MAX_WORDS = 300
PR_SET_PDEATHSIG = 1


class Found(Struct, frozen=True):
    """A line of the child. With `message`: what llama.cpp said no to, and lived. Without one: the child begins to look
    at the file `path`, so that a death has a name; `kind` is what sort of issue that would be. An empty `path` is the
    model's."""

    kind: IssueKind = "ModelCannotBeLoaded"
    path: str = ""
    message: str = ""


class _Death(Struct, frozen=True):
    how: str
    where: Found


def check(
    settings: EngineSettings, meanwhile: Callable[[], object] = lambda: None, *, is_suspect: bool = False
) -> None:
    """Read the model as `settings` want it, in a child. Raises `ModelError` when that dies or when llama.cpp refuses
    the file. What only fails in full size (memory) is left to the engine. `meanwhile` is called while it runs.
    With `is_suspect` both looks are taken."""
    first = _run(settings, "first", TIMEOUT_S, meanwhile)
    if first is None and not is_suspect:
        return
    if first is not None:
        log.warning("llama.cpp did not survive a first look at the model; trying it in full", reason=first.how)
    second = _run(settings, "full", FULL_TIMEOUT_S)
    if second is not None:
        where = second.where
        raise ModelError(
            f"llama.cpp does not survive {where.path or settings.model_path}: {second.how}. The file is damaged, or of "
            "a kind that this llama.cpp cannot serve",
            kind=where.kind,
            path=where.path,
        )


def _run(
    settings: EngineSettings, what: str, timeout_s: float, meanwhile: Callable[[], object] = lambda: None
) -> _Death | None:
    """How the child died, None if it lived. Raises `ModelError` for a refusal."""
    said = b""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "workers.agent.probe", what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(os.environ),
    ) as child:
        try:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # it is dead already
                child.stdin.write(msgspec.json.encode(settings))
                child.stdin.close()
            child.stdin = None
            meanwhile()
            said, complained = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            return _Death(f"not done after {timeout_s:g} s", _last_found(error.stdout or b""))
        finally:
            child.kill()
    if child.returncode > 0:
        # Python's end, not llama.cpp's: the engine will meet the same and say so.
        log.warning("could not look at the model", reason=_last_words(complained).strip(), code=child.returncode)
        return None
    if child.returncode < 0:
        return _Death(f"{_signal(-child.returncode)}{_last_words(complained)}", _last_found(said))
    if (found := _last_found(said)).message:
        raise ModelError(found.message, kind=found.kind, path=found.path)
    return None


def _last_found(said: bytes) -> Found:
    lines = said.splitlines()
    return msgspec.json.decode(lines[-1], type=Found) if lines else Found()


def _tell(found: Found) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
    sys.stdout.flush()


def _environment(environment: Mapping[str, str]) -> dict[str, str]:
    # Without the latter ggml calls a debugger before it aborts, which takes seconds.
    return {**environment, "CUDA_VISIBLE_DEVICES": "-1", "GGML_NO_BACKTRACE": "1"}


def _signal(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _last_words(stderr: bytes) -> str:
    """The assertion, if one says itself."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    told = [line for line in lines if "ASSERT" in line or "error" in line.lower()] or lines
    # An assertion names its file by where it was built.
    return f" ({re.sub(r'^(?:/[^/:]+)*/', '', told[-1])[:MAX_WORDS]})" if told else ""


def main(is_full: bool) -> None:
    """The child. What it looks at and refuses goes to stdout, and so nothing else may."""
    logs.configure("agent", "error", "json", stream=sys.stderr)
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineSettings)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not is_full:
        with contextlib.suppress(ValueError, OSError):  # a lower limit is there already
            resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY, MAX_MEMORY))
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    settings = structs.replace(settings, n_gpu_layers=0, tensor_split=(), main_gpu=0, split_mode="layer")
    from workers.agent import options
    from workers.agent.context import Context
    from workers.agent.llama import Model

    reading = options.Look(is_full=is_full)
    try:
        model = Model(Path(settings.model_path), options=reading)
        context_options = options.ContextOptions(
            model, settings, lambda adapter: _tell(Found("LoraAdapterCannotBeLoaded", adapter.path))
        )
        if settings.multimodal_projection is not None:
            _look_at_projection(Path(settings.multimodal_projection), model, is_full=is_full)
        _tell(Found())
    except ModelError as error:
        _tell(Found(error.kind, error.path, str(error)))
        os._exit(0)
    size = 64 if is_full else min(settings.context_size, 4096)
    with contextlib.suppress(ModelError):  # too large, or of types that do not go together: the engine will say so
        context = Context(
            model, num_sequences=1, context_size=size, max_batch=min(size, 64), num_threads=2, options=context_options
        )
        if is_full:
            import numpy as np

            context.batch.add(np.zeros(1, np.int32), 0, 0, wants_logits=True)
            context.decode()
    os._exit(0)  # nothing to free


def _look_at_projection(path: Path, model: Model, *, is_full: bool) -> None:
    """Raises `ModelError`."""
    from workers.agent import mtmd

    _tell(Found(mtmd.KIND, str(path)))
    projector = mtmd.Projector(path, model, num_threads=2)
    if is_full:
        import numpy as np

        for part in projector.read(projector.marker, [np.zeros((64, 64, 3), np.uint8)]):
            if isinstance(part, mtmd.ImageChunk):
                with contextlib.suppress(mtmd.ImageError):
                    projector.encode(part)


if __name__ == "__main__":
    main(sys.argv[1] == "full")
