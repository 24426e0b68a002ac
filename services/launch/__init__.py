"""Stages in several processes or on several hosts, by ``accelerate launch``.

The pipeline's process writes a job file, starts one launcher for each host, and reads the records
that the training process of rank 0 appends to a file; so one process alone writes the store and
MLflow. Nothing here trains: ``python -m services.launch JOB.json`` calls the same mechanisms that a
stage in one process calls.

Set by environment, because they belong to a place and not to a recipe: ``R1_HOSTS`` (addresses,
separated by commas; the first is where rank 0 runs) and ``R1_HOST_COMMAND`` (how to run a command
on a host, by default ``ssh -tt {host} {command}``). Hosts share ``R1_HOME`` and this checkout under
the same paths.
"""
