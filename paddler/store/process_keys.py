"""Keys of processes: who runs, which version, and how its clock stands."""

from __future__ import annotations


def process_key(prefix: str, process_id: str) -> str:
    """string · what a process says of itself (`paddler.presence`, JSON) · each process writes its own, `paddler doctor`
    and the panel read · TTL `PROCESS_TTL_S`, renewed while it runs, deleted when it stops."""
    return f"{prefix}:process:{process_id}"


PROCESS_TTL_S = 60
