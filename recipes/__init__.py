"""YAML files, one per experiment."""
