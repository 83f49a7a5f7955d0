"""Pure closed forms: keyword-only values in, one value out; numbers, arrays and symbols alike."""
