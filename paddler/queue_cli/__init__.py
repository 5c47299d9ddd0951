"""`paddler queue`: the queue as an operator sees it, and what an operator may do to it."""
