"""Traces of OpenTelemetry, with the extra `otel`: only who has an endpoint to send them to imports `traces.py`."""
