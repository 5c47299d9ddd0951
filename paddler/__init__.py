"""Paddler: a queue-native fleet for llama.cpp models."""

__version__ = "0.1.0"
