"""`paddler probe`: whether a process does its work, for health checks."""
