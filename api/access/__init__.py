"""Who is let in: API keys of every service and protocol, and what answers tell of their limits."""
