"""Numbers of the fleet and of this process: for Prometheus (`exposition.py`) and for StatsD (`statsd.py`)."""
