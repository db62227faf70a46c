"""Networks in files: checkpoints, starts from other networks, exports."""
