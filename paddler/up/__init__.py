"""`paddler up`: all processes of a fleet on one machine, supervised; the quick start and the development loop.

`plan` turns settings into child specs, `supervisor` decides (pure, time as an argument), `runner` acts on its
decisions, `launch` ties a child's life to ours, `valkey` is the embedded Redis, `starter` the model that comes along.
"""
