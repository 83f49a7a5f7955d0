"""What does a model ask of one die (demand)?  Rows of FLOP, bytes and messages; no machine in sight."""
