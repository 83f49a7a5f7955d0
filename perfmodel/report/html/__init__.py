"""What does the page of a plan look like?  One file that loads nothing."""
