"""What the gate, and who stands before it, adds to every route of a service, as `/openapi.json` tells it."""

from __future__ import annotations

from typing import Any

from paddler.errors import Forbidden, HostNotAllowed, QueueUnavailable, Unauthorized

ERRORS = (Unauthorized, Forbidden, HostNotAllowed, QueueUnavailable)
"""The gate's, and that of `api/hosts.py` before it."""

SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, as OpenAI's clients send it."},
    "x_api_key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "As Anthropic's clients do."},
}
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"x_api_key": []}, {}]
"""Either of them, or none while there is no key."""
