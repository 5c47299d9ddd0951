"""`paddler autoscale`: starts and stops agents of a pool by its demand.

`policy` says how many agents a demand needs, `scaler` decides (pure, time as an argument), `loop` looks and acts on the
decisions, `demand` is woken by Redis, `driver` is what starts and stops: `local` processes, or `shell` commands for any
cloud. `record` is what the next autoscaler finds.
"""
