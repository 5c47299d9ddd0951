"""`paddler keys` and `paddler usage`: both talk to Redis, so they work while no balancer runs."""
