"""Measurements of our own speed, for ``r1 bench``: each says what it measured and against what."""
