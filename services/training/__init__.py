"""Training: one file per mechanism. R1's phases are three of one, three of another."""
