"""Prefixes that operators have pinned: what agents compute once and keep."""
