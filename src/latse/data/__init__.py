"""Photographs to shards to batches."""
