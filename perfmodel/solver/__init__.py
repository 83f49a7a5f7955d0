"""The search: which layouts are valid, which is best, and why the others are not."""
