"""llama.cpp's own server, from the wheel `xllamacpp`, as a program: a build of `llama-server` takes ten minutes.

python tests/support/llama_cpp_server.py MODEL --port 8080 --parallel 2 --ctx-size 2048 --threads 1 --api-key KEY
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--parallel", type=int, required=True)
    parser.add_argument("--ctx-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--api-key", required=True)
    asked = parser.parse_args()
    # Not before pytest's own processes fork, and not in them: it brings a second llama.cpp.
    import xllamacpp

    library: Any = xllamacpp
    params = library.CommonParams()
    params.model.path = str(asked.model)
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], asked.port, [asked.api_key]
    params.n_parallel, params.n_ctx, params.kv_unified = asked.parallel, asked.ctx_size, True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads
    params.endpoint_slots = params.endpoint_props = True
    params.warmup = False
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = library.Server(params)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    del server


if __name__ == "__main__":
    main()
