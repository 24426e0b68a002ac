"""Where an artifact came from: the stages behind it, back to the models that enter a recipe."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Engine, select

from services.store.opening import reading
from services.store.schema import Decisions, Stages
from services.views.results import Decision

MAX_GENERATIONS = 20
MAX_EXPORTS = 500


class Ancestor(NamedTuple):
    """One stage behind an artifact."""

    digest: str
    """Of what it made."""
    run: str
    stage: str
    kind: str
    inputs: Mapping[str, str]
    """Role to digest of what went in."""


def ancestry(engine: Engine, digest: str) -> list[Ancestor]:
    """The stages that an artifact stands on, its own first, each once, generation by generation.

    What no stage made, such as a base model, is only named among the inputs. Of stages that made
    the same thing the first one counts, whichever run it belonged to.
    """
    found: dict[str, Ancestor] = {}
    wanted = {digest}
    with reading(engine) as connection:
        for _ in range(MAX_GENERATIONS):
            query = (
                select(Stages.output_digest, Stages.run_id, Stages.name, Stages.kind, Stages.inputs)
                .where(Stages.output_digest.in_(sorted(wanted)), Stages.output_digest != "")
                .order_by(Stages.id.desc())
            )
            generation = {row[0]: Ancestor(*row) for row in connection.execute(query)}
            found |= generation
            parents = {str(given) for row in generation.values() for given in row.inputs.values()}
            wanted = parents - found.keys()
            if not wanted:
                break
    return list(found.values())


def decisions_on(engine: Engine, digest: str) -> list[Decision]:
    """What gates decided on a checkpoint, in order."""
    columns = [getattr(Decisions, name) for name in Decision._fields]
    query = select(*columns).where(Decisions.candidate_digest == digest)
    with reading(engine) as connection:
        return [Decision(*row) for row in connection.execute(query.order_by(Decisions.decided_at))]


def exports_of(engine: Engine, digest: str) -> list[str]:
    """Folders of the exports that were made from a checkpoint, newest first, each once."""
    of_checkpoint = select(Stages.output_path, Stages.inputs).where(
        Stages.kind == "export", Stages.output_path != ""
    )
    with reading(engine) as connection:
        rows = connection.execute(of_checkpoint.order_by(Stages.id.desc()).limit(MAX_EXPORTS))
        folders = [path for path, inputs in rows if digest in inputs.values()]
    return list(dict.fromkeys(folders))
