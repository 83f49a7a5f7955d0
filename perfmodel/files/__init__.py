"""Where is a file found, read, checked and written?  The one place that touches files."""
