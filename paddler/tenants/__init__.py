"""Who may use the fleet, how much, and how much they have used: API keys, their limits, usage by tenant and day."""
