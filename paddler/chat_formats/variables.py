"""Variables of a chat template that a client may set."""

from __future__ import annotations

OWN = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "nl_token"),
        *("raise_exception", "strftime_now", "range", "dict", "lipsum", "cycler", "joiner", "namespace"),
    )
)
"""Those that it may not: they are what the renderer gives to every template."""
ENABLE_THINKING = "enable_thinking"
MAX_VARIABLES = 64
MAX_NAME = 64
