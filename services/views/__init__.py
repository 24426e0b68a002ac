"""The read side of the store: small queries with plain rows, for pages, tables and the terminal.

Every function takes the engine that ``open_views`` gives and answers with frozen tuples, never
with more rows than a page shows. Stages that were taken from another run answer with that run's
rows. Nothing here writes, and nothing here knows how it will be drawn.
"""

from services.errors import StoreError
from services.store.opening import MissingStoreError, store_url
from services.store.opening import open_engine_to_read as open_views
from services.views.answers import answers, evaluation_ids, protocol_of, recipe_of
from services.views.champions import Champion, champions
from services.views.completions import (
    MAX_COUNT,
    MAX_SAMPLES,
    PARTS,
    SEARCHED,
    Bar,
    Completion,
    CompletionFilter,
    Order,
    count_samples,
    reward_histogram,
    reward_weights,
    step_samples,
)
from services.views.curves import (
    CurvePoint,
    metric_names,
    same_recipe,
    seed_curves,
    training_curves,
)
from services.views.history import (
    Answer,
    Answers,
    Question,
    answer_at_step,
    answer_of_model,
    answers_by_model,
    answers_by_step,
    held_out_questions,
    repeated_questions,
)
from services.views.onsets import Onset, onset
from services.views.results import (
    CurationCount,
    Decision,
    Evaluation,
    Outcome,
    RaisedAlarm,
    alarms,
    curation_funnel,
    decisions,
    evaluation_table,
    outcomes,
)
from services.views.runs import Run, RunOverview, Stage, count_runs, list_runs, run_overview

__all__ = [
    "MAX_COUNT",
    "MAX_SAMPLES",
    "PARTS",
    "SEARCHED",
    "Answer",
    "Answers",
    "Bar",
    "Champion",
    "Completion",
    "CompletionFilter",
    "CurationCount",
    "CurvePoint",
    "Decision",
    "Evaluation",
    "MissingStoreError",
    "Onset",
    "Order",
    "Outcome",
    "Question",
    "RaisedAlarm",
    "Run",
    "RunOverview",
    "Stage",
    "StoreError",
    "alarms",
    "answer_at_step",
    "answer_of_model",
    "answers",
    "answers_by_model",
    "answers_by_step",
    "champions",
    "count_runs",
    "count_samples",
    "curation_funnel",
    "decisions",
    "evaluation_ids",
    "evaluation_table",
    "held_out_questions",
    "list_runs",
    "metric_names",
    "onset",
    "open_views",
    "outcomes",
    "protocol_of",
    "recipe_of",
    "repeated_questions",
    "reward_histogram",
    "reward_weights",
    "run_overview",
    "same_recipe",
    "seed_curves",
    "step_samples",
    "store_url",
    "training_curves",
]
