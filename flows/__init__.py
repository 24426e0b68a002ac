"""The rim: the recipe as flows, and the command line. Orchestration only; services do the work."""
