"""Frozen, closed records of what a user or a data file may say."""
