"""`paddler dashboard`: a fleet on a terminal, over the management service. `DESIGN.md` has its parts."""
