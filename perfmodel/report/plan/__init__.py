"""How is the answer of the planner told?  A document, a module a table."""
