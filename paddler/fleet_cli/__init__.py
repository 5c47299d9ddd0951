"""`paddler pools`, `paddler agents` and `paddler requests`: the fleet as an operator sees it, over Redis."""
