"""What may a user or a data file say?  Frozen, closed records."""
