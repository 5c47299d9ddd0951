"""Anthropic's protocol: what it looks like on the wire, and nothing of how a request is answered."""
