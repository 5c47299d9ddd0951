"""From a web server to a sentence: the real engine with a model that was downloaded, whole and in several files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from file_server import FileServer, Trick
from gguf import GGUFValueType, GGUFWriter
from known_gguf import reader_of
from starter_engine import starter_engine

from paddler.clock import SystemClock
from paddler.desired.schema import GivenModel, UrlReference
from paddler.testing.engine_run import EngineRun, make_job
from paddler.up.starter import find_starter
from workers.agent.fetch.cache import ModelCache
from workers.agent.fetch.manager import Fetching

pytestmark = pytest.mark.anyio


async def test_a_model_is_downloaded_and_speaks(server: FileServer, cache: ModelCache) -> None:
    """The connection breaks off on the way, and the checksum is right all the same."""
    model = Path(str(find_starter())).read_bytes()
    url = server.put("/smollm2.gguf", model)
    server.trick("/smollm2.gguf", Trick(cut_at=40_000_000), Trick())
    wanted = GivenModel(Url=UrlReference(url=url, sha256=hashlib.sha256(model).hexdigest()))
    [path] = await Fetching(wanted, cache, SystemClock(), chance=lambda: 0.0).run()
    assert [one.get("range") for one in server.gets("/smollm2.gguf")] == [None, "bytes=40000000-"]
    speak(path)


async def test_a_model_in_two_files_speaks(server: FileServer, cache: ModelCache, tmp_path: Path) -> None:
    names = [f"two-0000{one}-of-00002.gguf" for one in (1, 2)]
    split(Path(str(find_starter())), [tmp_path / name for name in names])
    urls = [server.put(f"/{name}", (tmp_path / name).read_bytes()) for name in names]
    wanted = GivenModel(Url=UrlReference(url=urls[0]))
    files = await Fetching(wanted, cache, SystemClock(), chance=lambda: 0.0).run()
    assert [file.name for file in files] == names
    speak(files[0])


def speak(path: Path) -> None:
    engine = starter_engine(model_path=str(path), slots=1, context_size=256)
    try:
        [outcome] = EngineRun(engine).finish(make_job("a", "Once upon a time", max_tokens=4))
        assert outcome.text
    finally:
        engine.close()


def split(model: Path, parts: list[Path]) -> None:
    """As llama.cpp's `gguf-split` does: the metadata in the first, and in each its number and how many there are."""
    reader = reader_of(model)
    architecture = str(reader.fields["general.architecture"].contents())
    half = len(reader.tensors) // 2
    for number, (path, tensors) in enumerate(zip(parts, (reader.tensors[:half], reader.tensors[half:]), strict=True)):
        writer = GGUFWriter(path, architecture)
        for field in reader.fields.values() if number == 0 else ():
            if field.name != "general.architecture" and not field.name.startswith("GGUF."):
                kind = field.types[0]
                of = field.types[-1] if kind is GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), kind, of)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", len(parts))
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
