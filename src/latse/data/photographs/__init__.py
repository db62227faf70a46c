"""Photographs: found, aligned and packed."""
