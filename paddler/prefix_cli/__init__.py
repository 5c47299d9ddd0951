"""`paddler prefixes`: what agents are to compute once and keep."""
