"""The inference service: where clients send their requests."""
