"""The dashboard: see reasoning emerge, find out why. Reads the store through ``services.views``."""
