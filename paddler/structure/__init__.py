"""The form of an answer: grammars in GBNF, whether one is safe to run, and how a JSON schema becomes one. Pure."""
