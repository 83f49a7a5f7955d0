"""DEMAND: what a model asks of one die, as rows of FLOP, bytes and messages; no machine in sight."""
