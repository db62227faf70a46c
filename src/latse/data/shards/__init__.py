"""Insightface sets: read, written, checked, spoiled on purpose, dealt out in batches."""
