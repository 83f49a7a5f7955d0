"""The sections of the page, one module each: its words, plots and tables."""
