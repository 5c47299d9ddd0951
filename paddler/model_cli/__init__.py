"""`paddler model`: what a pool is to serve, and how."""
