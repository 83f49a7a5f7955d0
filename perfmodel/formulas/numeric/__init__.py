"""Which forms need a series, a sample or a linear system: they take plain numbers and arrays, never symbols?"""
