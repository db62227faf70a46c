"""What must happen before mxnet is imported."""
