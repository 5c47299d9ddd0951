"""The management service: for operators, not for clients."""
