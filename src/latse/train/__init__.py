"""The trainer and what it keeps between iterations."""
