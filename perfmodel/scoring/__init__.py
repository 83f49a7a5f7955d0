"""How right are we?  Predictions beside what was measured and published, and the terms fitted to it."""
