"""Measured operators: what was run, and how long it took."""
