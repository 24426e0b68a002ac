"""Problem sources: where the questions of a recipe come from."""
