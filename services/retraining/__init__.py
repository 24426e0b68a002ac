"""Retraining: whether it is due and from where, and what is known when that is asked."""
