"""The report of a plan as one page that loads nothing."""
