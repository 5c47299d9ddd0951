"""OpenAI's Responses API: what it looks like on the wire, what is stored, and its routes."""
