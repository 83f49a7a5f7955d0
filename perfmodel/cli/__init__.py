"""How is it asked?  Commands: each declares its options, asks the library and shows one document."""
