"""The answer of the planner as a document, a module a table."""
