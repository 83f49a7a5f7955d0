"""Forms that need series, samples or linear systems: they take plain numbers and arrays, never symbols."""
