"""`paddler bench`: puts load on servers that speak OpenAI's protocol, and says how they bore it."""
