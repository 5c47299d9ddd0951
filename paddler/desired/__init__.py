"""What a pool is to serve and how: its desired state, kept in Redis, versioned."""
