"""Prefect's own server, mended so that it schedules on SQLAlchemy 2.1: ``python -m`` this module.

Prefect 3.8 inserts scheduled flow runs in bulk, with their state among the values. Its ``state`` is
a hybrid attribute, which SQLAlchemy 2.0 passed over and 2.1 refuses without a setter for bulk
statements, so no deployment ever gets a run and the log alone says so. The setter here passes it
over again. Where Prefect brings its own, or SQLAlchemy is older, nothing is changed.
"""

import sys


def mend_bulk_inserts() -> bool:
    """Give the hybrid states a bulk setter that does nothing; whether one was missing."""
    from prefect.server.database.orm_models import FlowRun, TaskRun

    mended = False
    for table in (FlowRun, TaskRun):
        state = vars(table)["state"]
        if getattr(state, "bulk_dml_setter", state) is None:
            state.bulk_dml_setter = lambda _table, _mapping, _value: None
            mended = True
    return mended


def main() -> None:
    """Run ``prefect server start`` with the words of the command line."""
    mend_bulk_inserts()
    from prefect.cli import app

    sys.argv = ["prefect", "server", "start", *sys.argv[1:]]
    app()


if __name__ == "__main__":
    main()
