"""`paddler batch`: batches over the HTTP API, from a shell."""
