"""A registry of many versions, for measuring what lists them.

All versions are the smallest bundled model under digests of their own; none of them was trained.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.base_models import BUNDLED
from services.line import open_line
from services.registry import Registry
from services.types import CheckpointRef

MODEL: Final = "r1"
TELL_EVERY: Final = 100


@contextmanager
def registry_of_its_own() -> Iterator[None]:
    """Take away the address of a server: made-up versions must not come into a real registry."""
    kept = os.environ.pop("MLFLOW_TRACKING_URI", None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ["MLFLOW_TRACKING_URI"] = kept


def fill(
    home: Path, url: str, versions: int, report: Callable[[int], None] = lambda _: None
) -> Registry:
    """Register as many versions as are missing; the last but one is champion.

    Args:
        home: State folder, which holds MLflow's database; see ``registry_of_its_own``.
        url: Store that keeps the promotions.
        versions: How many there are to be.
        report: Told how many there are, now and then.
    """
    line = open_line(home, url)
    newest = next(iter(line.versions(MODEL, 1)), None)
    for number in range(newest.number + 1 if newest else 1, versions + 1):
        line.register(
            CheckpointRef("r1", str(BUNDLED / "tiny-student"), f"{number:064x}", ("0" * 64,)),
            model=MODEL,
            pipeline=f"bench-s0-{number:08x}",
            recipe_digest=f"{number:064x}",
            mlflow_run_id="",
            tags={"evaluation": '{"pass@1": 0.5}', "evaluation_ids": str(number)},
        )
        if number % TELL_EVERY == 0:
            report(number)
    if line.head(MODEL) is None:
        line.promote(MODEL, max(1, versions - 1), who="bench", why="there has to be one")
    return line
