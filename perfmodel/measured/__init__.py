"""What was measured?  Operators that were run, and how long each took, in the tables people have."""
