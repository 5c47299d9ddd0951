"""Asks a fleet for one stream and reads it to its end. Python's standard library only; one argument, the address."""

from __future__ import annotations

import json
import sys
import urllib.request
from http.client import HTTPResponse
from typing import cast

TIMEOUT_S = 60


def main(address: str) -> int:
    asked = {"model": "default", "messages": [{"role": "user", "content": "Say hello."}], "stream": True}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions",
        data=json.dumps(asked | {"max_tokens": 16}).encode(),
        headers={"Content-Type": "application/json"},
    )
    text, is_done = "", False
    with cast(HTTPResponse, urllib.request.urlopen(request, timeout=TIMEOUT_S)) as answer:
        for line in answer:
            data = line.decode().removeprefix("data: ").strip()
            if data == "[DONE]":
                is_done = True
            elif data.startswith("{"):
                text += "".join(choice["delta"].get("content") or "" for choice in json.loads(data).get("choices", []))
    print(f"smoke: {text!r}{'' if is_done else ', and no end'}")
    return 0 if is_done and text else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
