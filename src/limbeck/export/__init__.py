"""A student as other programs run it: exported, checked against the run, and written."""
