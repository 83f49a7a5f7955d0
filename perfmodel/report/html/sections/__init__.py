"""What does each section of the page say?  A module a section: its words, plots and tables."""
