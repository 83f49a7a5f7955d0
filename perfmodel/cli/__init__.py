"""The command line: declare options, call the library, show one document."""
