"""Messages between processes, one module per recipient, imported by both sides.

Evolution: new fields go last and have defaults, a field is never retyped, a tag is never reused.
`tests/wire` pins the bytes.
"""
