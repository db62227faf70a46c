"""Verification pairs: drawn, written, and read without trust."""
