"""What is a closed form?  Pure and keyword-only: values in, one value out; numbers, arrays and symbols alike."""
