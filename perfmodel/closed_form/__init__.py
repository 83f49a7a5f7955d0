"""What is the formula of a number?  The code that works it out, run on symbols; where its choices flip.

A form is cut where one stage hands a record to the next: a line gives one field of a record from the fields of
those before it, under the field's own name.  Values, flips and slopes come from the same code on numbers and arrays.
"""
