"""Lines/s of a batch with the scripted engine, and what a large file costs in memory: every process is a real one.

    python -m tests.bench.batches --lines 50000 --file-mb 200

The engine computes nothing, so that the figure is what files, worker, queue and agents take of a line. Memory is the
most that a process has had (`VmHWM`), before the file, after its upload and download, and after the batch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.bench.llama_server import free_port
from tests.bench.queue_fleet import PREFIX, Child, new_valkey, until

PIECE = 64 * 1024
ENDED = ("completed", "failed", "expired", "cancelled")


class Fleet:
    """A Valkey, a balancer, a worker and agents."""

    def __init__(self, folder: Path, *, agents: int, slots: int, file_store: str) -> None:
        self._folder = folder
        self.valkey = new_valkey()
        self.valkey.start()
        self.url = f"http://127.0.0.1:{free_port()}"
        kept = ("--file-store", file_store)
        other = f"127.0.0.1:{free_port()}"
        self.children: dict[str, Child] = {}
        self._start("balancer", "--inference-addr", self.url[7:], "--management-addr", other, *kept)
        self._start("worker", *kept)
        for number in range(agents):
            name = f"agent{number}"
            engine = ("--engine", "scripted", "--slots", str(slots), "--scripted-step", "0")
            self._start("agent", *engine, "--name", name, as_name=name)
        self.http = httpx.Client(base_url=self.url, timeout=600, trust_env=False)
        until(self._is_ready, "the fleet is there")

    def _start(self, *arguments: str, as_name: str = "") -> None:
        name = as_name or arguments[0]
        log = self._folder / f"{name}.log"
        redis = ("--redis-url", self.valkey.url, "--redis-prefix", PREFIX)
        self.children[name] = Child(log, *arguments, *redis)

    def _is_ready(self) -> bool:
        try:
            names = {model["id"] for model in self.http.get("/v1/models").json()["data"]}
        except httpx.HTTPError:
            return False
        return "scripted" in names

    def peak_mb(self) -> dict[str, float]:
        processes = {name: child.process.pid for name, child in self.children.items()}
        assert self.valkey.process is not None
        processes["valkey"] = self.valkey.process.pid
        return {name: round(_peak_kb(pid) / 1024, 1) for name, pid in processes.items()}

    def close(self) -> None:
        self.http.close()
        for child in self.children.values():
            child.process.terminate()
        for child in self.children.values():
            child.process.wait(20)
        self.valkey.close()


def _peak_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise LookupError(pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--file-mb", type=int, default=200)
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=8, help="said by each answer")
    parser.add_argument("--folder", action="store_true", help="keep files in a directory, not in Redis")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="paddler-bench-") as name:
        folder = Path(name)
        store = (folder / "files").as_uri() if args.folder else "redis"
        fleet = Fleet(folder, agents=args.agents, slots=args.slots, file_store=store)
        try:
            report: dict[str, Any] = {"file_store": store.partition(":")[0], "start_mb": fleet.peak_mb()}
            report |= measure_file(fleet, folder, args.file_mb) | {"file_peak_mb": fleet.peak_mb()}
            report |= measure_batch(fleet, folder, args.lines, args.tokens) | {"batch_peak_mb": fleet.peak_mb()}
        finally:
            fleet.close()
    print(json.dumps(report))


def measure_file(fleet: Fleet, folder: Path, size_mb: int) -> dict[str, float]:
    """Seconds for a file of so many MiB, up and down."""
    path = folder / "large.jsonl"
    block = hashlib.sha256(b"block").hexdigest().encode() * (PIECE // 64)
    with path.open("wb") as file:
        for _ in range(size_mb * 1024 * 1024 // PIECE):
            file.write(block)
    begin = time.perf_counter()
    file_id = upload(fleet, path)
    up_s = time.perf_counter() - begin
    begin = time.perf_counter()
    size = sum(len(piece) for piece in download(fleet, file_id))
    down_s = time.perf_counter() - begin
    assert size == path.stat().st_size
    fleet.http.delete(f"/v1/files/{file_id}").raise_for_status()
    path.unlink()
    return {"file_mb": size_mb, "upload_s": round(up_s, 2), "download_s": round(down_s, 2)}


def measure_batch(fleet: Fleet, folder: Path, num_lines: int, num_tokens: int) -> dict[str, float]:
    path = folder / "in.jsonl"
    with path.open("w") as file:
        for number in range(num_lines):
            messages = [{"role": "user", "content": f"[[tokens={num_tokens}]] question number {number}"}]
            body = {"model": "default", "messages": messages, "temperature": 0}
            line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h", "input_file_id": upload(fleet, path)}
    begin = time.perf_counter()
    batch = fleet.http.post("/v1/batches", json=asked).raise_for_status().json()
    validated_s = None
    while batch["status"] not in ENDED:
        time.sleep(0.1)
        batch = fleet.http.get(f"/v1/batches/{batch['id']}").raise_for_status().json()
        if validated_s is None and batch["status"] != "validating":
            validated_s = time.perf_counter() - begin
    seconds = time.perf_counter() - begin
    assert batch["request_counts"] == {"total": num_lines, "completed": num_lines, "failed": 0}, batch
    output = b"".join(download(fleet, batch["output_file_id"]))
    assert len({json.loads(line)["custom_id"] for line in output.splitlines()}) == num_lines
    rate = num_lines / seconds
    report = {"lines": num_lines, "validated_s": validated_s or seconds, "batch_s": seconds, "lines_per_s": rate}
    return {name: round(value, 2) for name, value in report.items()}


def upload(fleet: Fleet, path: Path) -> str:
    with path.open("rb") as file:
        form = {"file": (path.name, file)}
        answer = fleet.http.post("/v1/files", data={"purpose": "batch"}, files=form).raise_for_status()
    return answer.json()["id"]


def download(fleet: Fleet, file_id: str) -> Iterator[bytes]:
    with fleet.http.stream("GET", f"/v1/files/{file_id}/content") as answer:
        answer.raise_for_status()
        yield from answer.iter_bytes()


if __name__ == "__main__":
    main()
