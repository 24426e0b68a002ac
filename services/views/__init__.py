"""The read side of the store: small queries with plain rows, for pages, tables and the terminal.

Every function takes the engine that ``open_views`` gives and answers with frozen tuples, never
with more rows than a page shows. Stages that were taken from another run answer with that run's
rows. Nothing here writes, and nothing here knows how it will be drawn.
"""

from services.errors import StoreError
from services.store.opening import MissingStoreError, store_url
from services.store.opening import open_engine_to_read as open_views
from services.views.answers import Answers, answers, evaluation_ids, protocol_of, recipe_of
from services.views.completions import Completion, CompletionFilter, Order, step_samples
from services.views.curves import CurvePoint, metric_names, training_curves
from services.views.results import (
    CurationCount,
    Decision,
    Evaluation,
    RaisedAlarm,
    alarms,
    curation_funnel,
    decisions,
    evaluation_table,
)
from services.views.runs import Run, RunOverview, Stage, list_runs, run_overview

__all__ = [
    "Answers",
    "Completion",
    "CompletionFilter",
    "CurationCount",
    "CurvePoint",
    "Decision",
    "Evaluation",
    "MissingStoreError",
    "Order",
    "RaisedAlarm",
    "Run",
    "RunOverview",
    "Stage",
    "StoreError",
    "alarms",
    "answers",
    "curation_funnel",
    "decisions",
    "evaluation_ids",
    "evaluation_table",
    "list_runs",
    "metric_names",
    "open_views",
    "protocol_of",
    "recipe_of",
    "run_overview",
    "step_samples",
    "store_url",
    "training_curves",
]
