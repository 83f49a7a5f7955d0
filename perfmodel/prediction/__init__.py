"""What does one deployment do?  A layout checked, timed and served; how sure that is; no search, no file."""
