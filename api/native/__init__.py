"""Paddler 4's own protocol: lines of JSON, and a WebSocket that many requests share."""
