"""The recipe: DeepSeek-R1 from a base model to a champion, one line per stage.

    base ──RL: accuracy + format────────────────────────────► r1-zero
    r1-zero ──sample, filter, rewrite───────────────────────► cold-start set
    base ──SFT──────────────────────────────────────────────► dev1
    dev1 ──RL: + language consistency───────────────────────► dev2
    dev2 ──rejection sampling, + non-reasoning rows─────────► SFT set
    base ──SFT (from BASE, not from dev2)───────────────────► dev3
    dev3 ──RL: rules + preference models + language─────────► r1
    student ──SFT on the same set, no RL────────────────────► distill   (control: RL alone)
    distill ──r1 corrects its own samples; off by default───► on-policy
    all ──evaluate──► gate ──► registry ──► export

Every stage is tracked, cached by the content that decides it, and resumable; see ``pipeline``. A
retraining takes stages over from the champion's pipeline; see ``inheritance``.
"""

from contextlib import suppress

from prefect import flow
from rich.console import Console

from flows import judges, release, stages
from flows.disk import require_disk
from flows.environment import home_folder
from flows.pipeline import Pipeline, UntilReached, open_pipeline
from flows.progress import StageProgress
from flows.report import PipelineReport, make_report
from services.config import Recipe


@flow(name="r1", validate_parameters=False)
def r1(recipe: Recipe, until: str | None = None, start: str | None = None) -> PipelineReport:
    """Run the recipe; finished stages are found and not run again."""
    console = Console(stderr=True)
    with (
        StageProgress(console) as progress,
        open_pipeline(recipe, home_folder(), progress, until=until, start=start) as run,
    ):
        with suppress(UntilReached):
            recipe_of(run)
        return make_report(run)


def recipe_of(run: Pipeline) -> None:
    """The recipe itself."""
    recipe = run.recipe
    base, student = stages.model(run, "base"), stages.model(run, "student-base")
    require_disk(run, base, student)

    zero = stages.reinforce(run, "zero", base, recipe.zero)
    cold = stages.cold_start(run, zero)
    dev1 = stages.fine_tune(run, "dev1", base, cold, recipe.dev1)
    dev2 = stages.reinforce(run, "dev2", run.inherited.policy("dev2", dev1), recipe.dev2)
    teach = stages.sft_set(run, dev2)
    dev3 = stages.fine_tune(run, "dev3", base, teach, recipe.dev3)
    prefer = judges.preference_models(run, base, dev3) if recipe.problems.general else None
    final = stages.reinforce(run, "r1", run.inherited.policy("r1", dev3), recipe.r1, prefer)
    distill = stages.fine_tune(run, "distill", student, teach, recipe.distill)
    own = stages.teach_on_policy(run, distill, final) if recipe.on_policy.steps else None
    control = stages.reinforce(run, "student-rl", student, recipe.student_rl)

    made = {
        "base": base,
        "r1-zero": zero,
        "dev1": dev1,
        "dev2": dev2,
        "dev3": dev3,
        "r1": final,
        "student-base": student,
        "distill": distill,
        **({"on-policy": own} if own else {}),
        "student-rl": control,
    }
    checkpoints = run.inherited.measured(made)
    measured = stages.evaluations(run, checkpoints)
    release.gate(run, checkpoints, measured)
    if "r1" in checkpoints:
        release.export(run, final)
