import json
from datetime import UTC, datetime

import pytest

from dashboard import charts
from dashboard.figures import FIGURES, Figure
from dashboard.lineage import OPTIONAL, PLAN, RESTART, lineage_dot
from services.views import CurationCount, CurvePoint, Stage

FIGURE = Figure("Length", "tokens", {"mean": "all"}, 'what "it" is', band=("low", "high"))


def stage(name: str, **changes: object) -> Stage:
    now = datetime.now(UTC)
    made = Stage(
        name, "rl", "finished", "key", "", {"policy": "digest-of-base"}, {"estimator": "dapo"},
        10, 10, "", f"digest-of-{name}", 12.0, now,
    )  # fmt: skip
    return made._replace(**changes)


def test_stages_lie_one_behind_the_other() -> None:
    stages = [stage("zero"), stage("dev1", last_step=4, attributes={}), stage("dev2")]
    assert charts.spans(stages) == [
        charts.Span("zero", "zero (dapo)", 0, 10),
        charts.Span("dev1", "dev1", 10, 14),
        charts.Span("dev2", "dev2 (dapo)", 14, 24),
    ]


def test_points_are_placed_and_smoothed_within_their_stage() -> None:
    axis = charts.spans([stage("zero", last_step=3), stage("dev2", last_step=3)])
    points = [
        CurvePoint(name, "mean", step, value)
        for name, values in (("zero", (1.0, 2.0, 6.0)), ("dev2", (0.0, None, 4.0)))
        for step, value in enumerate(values, start=1)
    ]
    others = [CurvePoint("zero", "other metric", 1, 9.0), CurvePoint("other stage", "mean", 1, 9.0)]
    table = charts.curve_table(FIGURE, points + others, axis, smoothing=3)
    assert list(table["place"]) == [1, 2, 3, 4, 5, 6]
    assert list(table["smooth"]) == [1.5, 3.0, 4.0, 0.0, 2.0, 4.0]


def points_of(*names: str) -> list[CurvePoint]:
    return [CurvePoint("zero", name, step, step / 10) for name in names for step in range(1, 11)]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.title)
def test_every_figure_is_a_valid_chart(figure: Figure) -> None:
    axis = charts.spans([stage("zero")])
    table = charts.curve_table(figure, points_of(*figure.metrics), axis, 5)
    spec = charts.curves(figure, table, axis).to_dict()
    titles = {layer["encoding"].get("y", {}).get("title") for layer in spec["layer"]}
    assert figure.axis in titles
    (tooltip,) = spec["layer"][-1]["transform"]
    assert tooltip == {"calculate": json.dumps(figure.definition), "as": "means"}


def test_a_band_needs_both_of_its_ends() -> None:
    axis = charts.spans([stage("zero")])

    def layers(*names: str) -> int:
        table = charts.curve_table(FIGURE, points_of(*names), axis, 1)
        return len(charts.curves(FIGURE, table, axis).to_dict()["layer"])

    assert layers("mean", "low", "high") == layers("mean", "low") + 1 == layers("mean") + 1


def test_a_stage_has_its_colour_and_a_series_its_word() -> None:
    axis = charts.spans([stage("zero"), stage("dev2")])
    points = [*points_of("mean"), *(point._replace(stage="dev2") for point in points_of("mean"))]
    spec = charts.curves(FIGURE, charts.curve_table(FIGURE, points, axis, 1), axis).to_dict()
    scale = spec["layer"][-1]["encoding"]["color"]["scale"]
    assert scale == {"domain": ["zero (dapo)", "dev2 (dapo)"], "range": list(charts.PALETTE[:2])}


def test_a_funnel_adds_up_its_sources() -> None:
    counts = [
        CurationCount("kept", "a", 3),
        CurationCount("kept", "b", 4),
        CurationCount("wrong answer", "a", 5),
    ]
    spec = charts.funnel(counts).to_dict()
    (rows,) = spec["datasets"].values()
    assert rows == [{"reason": "kept", "rows": 7}, {"reason": "wrong answer", "rows": 5}]


def test_the_plan_is_drawn_before_anything_has_run() -> None:
    dot = lineage_dot([])
    assert all(f'"{name}" [label=' in dot for name in PLAN.keys() - OPTIONAL)
    assert f'"base" -> "dev3" [color="{RESTART}"' in dot
    assert f'"base" -> "dev1" [color="{RESTART}"' in dot
    assert '"dev2" -> "dev3"' not in dot
    assert dot.count("planned") == len(PLAN) - len(OPTIONAL)


def test_recorded_stages_are_joined_by_their_digests() -> None:
    fed = {"policy": "digest-of-zero", "data": "nobody made this"}
    dot = lineage_dot([stage("zero"), stage("dev1", inputs=fed)])
    assert '"zero" -> "dev1" [style=solid]' in dot
    assert '"cold-start" -> "dev1" [style=dashed]' in dot
    assert '"base" -> "zero" [style=solid]' in dot


def test_a_running_stage_says_how_far_it_is() -> None:
    dot = lineage_dot([stage("zero", state="running", last_step=3, total_steps=70)])
    assert "step 3 of 70" in dot


def test_names_cannot_break_out_of_the_graph() -> None:
    dot = lineage_dot([stage('x"]; evil [label="\\')])
    assert '"x\\"]; evil [label=\\"\\\\"' in dot


def test_an_optional_stage_is_drawn_only_where_it_ran() -> None:
    assert "on-policy" not in lineage_dot([stage("distill")])
    drawn = lineage_dot(
        [stage("distill"), stage("on-policy", inputs={"policy": "digest-of-distill"})]
    )
    assert '"distill" -> "on-policy"' in drawn
