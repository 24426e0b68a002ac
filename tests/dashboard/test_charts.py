import json
from datetime import UTC, datetime

import altair as alt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard import charts, emergence_charts, funnels, histograms
from dashboard.charts import Drawn
from dashboard.figures import EMERGENCE, SECTIONS, Figure
from dashboard.intervals import intervals
from dashboard.lineage import OPTIONAL, PLAN, RESTART, lineage_dot
from dashboard.name_places import NAME_HEIGHT, name_places
from services.views import Bar, CurationCount, CurvePoint, Stage
from services.views.comparisons import Estimate, Measured

FIGURE = Figure(
    "Length", "tokens", {"mean": "all"}, 'what "it" is', bands={"mean": ("low", "high")}
)


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


def drawn_of(figure: Figure, lines: dict[str, list[CurvePoint]], axis: list[charts.Span]) -> Drawn:
    return charts.curves(figure, charts.curve_table(figure, lines, axis, 3), axis)


def check_schema(drawn: Drawn) -> None:
    """Vega-Lite's own schema, which altair holds; and every layer finds its numbers."""
    alt.LayerChart.from_dict(drawn.spec)
    assert {layer["data"]["name"] for layer in drawn.spec["layer"]} <= drawn.data.keys()
    for columns in drawn.data.values():
        assert len({len(column) for column in columns.values()}) == 1


def points_of(*names: str) -> list[CurvePoint]:
    return [CurvePoint("zero", name, step, step / 10) for name in names for step in range(1, 11)]


def test_points_are_placed_and_smoothed_within_their_stage() -> None:
    axis = charts.spans([stage("zero", last_step=3), stage("dev2", last_step=3)])
    points = [
        CurvePoint(name, "mean", step, value)
        for name, values in (("zero", (1.0, 2.0, 6.0)), ("dev2", (0.0, None, 4.0)))
        for step, value in enumerate(values, start=1)
    ]
    others = [CurvePoint("zero", "other metric", 1, 9.0), CurvePoint("other stage", "mean", 1, 9.0)]
    table = charts.curve_table(FIGURE, {"run": points + others}, axis, smoothing=3)
    assert table["place"] == [1, 2, 3, 4, 5, 6]
    assert table["smooth"] == [1.5, 3.0, 4.0, 0.0, 2.0, 4.0]


def test_a_constant_stays_constant_beside_any_neighbour() -> None:
    assert set(charts.running_mean([1e-4] * 75, 5)) == {1e-4}
    assert charts.running_mean([1e16, 1.0, 1.0, 1.0], 2)[2:] == [1.0, 1.0]


def test_what_is_measured_seldom_is_shown_as_measured() -> None:
    figure = FIGURE._replace(seldom=True)
    points = [CurvePoint("zero", "mean", step, value) for step, value in ((15, 0.4), (30, 0.9))]
    axis = charts.spans([stage("zero", last_step=30)])
    table = charts.curve_table(figure, {"run": points}, axis, smoothing=5)
    assert table["smooth"] == table["value"] == [0.4, 0.9]


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), max_size=40), st.integers(1, 12))
def test_the_running_mean_is_that_of_the_values_around(
    values: list[float | None], width: int
) -> None:
    found = charts.running_mean(values, width)
    for place, mean in enumerate(found):
        near = values[max(0, place - width // 2) : place + (width - 1) // 2 + 1]
        known = [value for value in near if value is not None]
        expected = sum(known) / len(known) if known else None
        assert mean == (expected if expected is None else pytest.approx(expected, abs=1e-6))


ALL_FIGURES = [figure for section in SECTIONS.values() for figure in section] + list(EMERGENCE)


@pytest.mark.parametrize("figure", ALL_FIGURES, ids=lambda figure: figure.title)
def test_every_figure_is_a_valid_chart_that_says_what_it_is(figure: Figure) -> None:
    there = [name.replace("*", "5") for name in figure.metrics]
    known = figure.of(there)
    drawn = drawn_of(known, {"run": points_of(*there)}, charts.spans([stage("zero")]))
    check_schema(drawn)
    titles = {layer["encoding"].get("y", {}).get("title") for layer in drawn.spec["layer"]}
    assert figure.axis in titles
    (tooltip,) = drawn.spec["layer"][-1]["transform"]
    assert tooltip == {"calculate": json.dumps(figure.definition), "as": "means"}
    assert len(figure.definition.split()) > 5


def test_a_funnel_says_what_each_reason_left() -> None:
    ways = [("kept", "a", 5), ("wrong answer", "a", 2), ("duplicate", "a", 1)]
    counts = [CurationCount(*way) for way in [*ways, ("wrong answer", "b", 1)]]
    drawn = funnels.funnel(counts)
    check_schema(drawn)
    assert drawn.numbers == {
        "reason": ["candidates", "wrong answer", "duplicate"],
        funnels.DROPPED: [0, 3, 1],
        funnels.LEFT: [9, 6, 5],
    }


def test_bars_beyond_the_bounds_of_a_filter_are_told_apart() -> None:
    bars = [Bar(-0.1, 0.0, 4), Bar(0.0, 0.1, 3), Bar(1.0, 1.1, 2)]
    drawn = histograms.histogram(bars, "reward", least=0.0, below=1.0)
    check_schema(drawn)
    left_out, chosen = histograms.OTHER, histograms.CHOSEN
    assert drawn.numbers["filter"] == [left_out, chosen, left_out]
    assert set(histograms.histogram(bars, "reward").numbers["filter"]) == {chosen}
    picked = drawn.spec["layer"][0]["params"][0]["select"]["fields"]
    assert [drawn.numbers[end][0] for end in picked] == [-0.1, 0.0]


def test_intervals_keep_the_order_of_the_models_and_leave_out_other_levels() -> None:
    models = [Measured(2, "run", "r1"), Measured(1, "run", "base")]
    estimates = [
        Estimate(1, None, 0.4, 0.3, 0.5, 8),
        Estimate(2, None, 0.9, 0.8, 0.95, 8),
        Estimate(1, 3, 0.7, 0.6, 0.8, 2),
        Estimate(7, None, 0.1, 0.0, 0.2, 8),
    ]
    drawn = intervals(models, estimates, None)
    check_schema(drawn)
    assert drawn.numbers["model"] == ["r1", "base"]
    assert drawn.numbers["accuracy"] == [0.9, 0.4]
    assert intervals(models, estimates, 3).numbers["model"] == ["base"]


def test_a_star_stands_for_every_level() -> None:
    figure = Figure("x", "y", {"accuracy/level_*": "level {}"}, "what it is")
    found = figure.of(["accuracy/level_5", "accuracy/level_3", "accuracy"])
    assert found.series == {"accuracy/level_3": "level 3", "accuracy/level_5": "level 5"}


def test_a_band_needs_both_of_its_ends() -> None:
    axis = charts.spans([stage("zero")])

    def layers(*names: str) -> int:
        return len(drawn_of(FIGURE.of(names), {"run": points_of(*names)}, axis).spec["layer"])

    assert layers("mean", "low", "high") == layers("mean", "low") + 1 == layers("mean") + 1


def test_a_stage_has_its_colour_and_several_runs_have_theirs() -> None:
    axis = charts.spans([stage("zero"), stage("dev2")])
    points = [*points_of("mean"), *(point._replace(stage="dev2") for point in points_of("mean"))]

    def colours(lines: dict[str, list[CurvePoint]]) -> list[str]:
        scale = drawn_of(FIGURE, lines, axis).spec["layer"][-1]["encoding"]["color"]["scale"]
        assert scale["range"] == list(charts.PALETTE[:2])
        found: list[str] = scale["domain"]
        return found

    assert colours({"run": points}) == ["zero (dapo)", "dev2 (dapo)"]
    assert colours({"one": points, "other": points}) == ["one", "other"]


def test_seeds_are_a_line_with_a_band() -> None:
    axis = charts.spans([stage("zero")])
    wide = [point._replace(low=0.0, high=2.0) for point in points_of("mean")]
    drawn = drawn_of(FIGURE, {"seeds 0, 1": wide, "other": points_of("mean")}, axis)
    check_schema(drawn)
    (band,) = [layer for layer in drawn.spec["layer"] if layer["mark"]["type"] == "area"]
    assert (band["encoding"]["y"]["field"], band["encoding"]["y2"]["field"]) == ("low", "high")
    assert band["data"] == {"name": "points"}


def test_marks_and_levels_are_drawn_with_their_names() -> None:
    axis = charts.spans([stage("zero")])
    table = charts.curve_table(FIGURE, {"run": points_of("mean")}, axis, 1)
    marks = [charts.Mark(10, "pass@1 of r1-zero", 0.8), charts.Mark(4, "sets in at step 4")]
    drawn = charts.curves(FIGURE, table, axis, marks=marks, levels=[charts.Level("base", 0.5)])
    check_schema(drawn)
    assert drawn.data["dots"]["measured"] == [0.8]
    assert drawn.data["rules"]["at"] == [4]
    assert drawn.data["levels"] == {"label": ["base"], "level": [0.5]}


def test_words_and_questions_are_valid_charts() -> None:
    axis = charts.spans([stage("zero")])
    counts: charts.Columns = {
        "word": ["wait"], "language": ["English"], "stage": ["zero"], "step": [1], "from": [0],
        "to": [1], "count": [0.5],
    }  # fmt: skip
    check_schema(emergence_charts.words_over_steps(["wait", "but"], counts, axis))
    answers: charts.Columns = {
        "where": ["base"], "right": [0.5], "tokens": [9.0], "reflective words": [1.0],
        "samples": [16],
    }  # fmt: skip
    check_schema(emergence_charts.history(["base"], answers))


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


@pytest.mark.parametrize("values", [[0.1, 0.5, 0.9], [0.78, 0.8, 0.83], [0.37, 0.5, 0.53, 0.55]])
def test_names_of_rules_that_lie_close_stand_apart(values: list[float]) -> None:
    places = name_places(values)
    assert all(place.beside for place in places) == (max(values) - min(values) > 0.7)
    for number, (side, bottom, _) in enumerate(places):
        assert not any(bottom + 1e-9 < value < bottom + NAME_HEIGHT - 1e-9 for value in values)
        for other in places[:number]:
            assert side != other.side or abs(bottom - other.bottom) > 0.9 * NAME_HEIGHT


@given(st.lists(st.floats(0, 1), max_size=6))
def test_every_rule_has_a_name_whatever_lies_beside_it(values: list[float]) -> None:
    axis = charts.spans([stage("zero")])
    table = charts.curve_table(FIGURE, {"run": points_of("mean")}, axis, 1)
    levels = [charts.Level(f"level {place}", value) for place, value in enumerate(values)]
    drawn = charts.curves(FIGURE, table, axis, levels=levels)
    names = drawn.data.get("level names", {"label": [], "side": []})
    assert all(
        label in {level.label, f"{level.label} {level.value:.2f}"}
        for label, level in zip(names["label"], levels, strict=True)
    )
    layers = [layer for layer in drawn.spec["layer"] if layer["data"]["name"] == "level names"]
    drawn_sides = {layer["mark"]["align"] for layer in layers}
    assert drawn_sides == set(names["side"])


def test_what_did_not_last_is_a_broken_rule() -> None:
    axis = charts.spans([stage("zero")])
    table = charts.curve_table(FIGURE, {"run": points_of("mean")}, axis, 1)
    marks = [charts.Mark(4, "sets in"), charts.Mark(6, "sets in, but did not", lasting=False)]
    drawn = charts.curves(FIGURE, table, axis, marks=marks)
    check_schema(drawn)
    assert drawn.data["rules"]["lasting"] == [True, False]
    (rules,) = [layer for layer in drawn.spec["layer"] if layer["data"]["name"] == "rules"]
    dashes = rules["encoding"]["strokeDash"]
    assert dashes["condition"]["test"] == "datum.lasting"
    assert dashes["condition"]["value"] != dashes["value"]


def test_a_short_last_stage_is_named_at_its_end() -> None:
    def sides(*steps: int) -> list[str]:
        axis = charts.spans([stage(f"s{n}", last_step=each) for n, each in enumerate(steps)])
        return [layer["mark"]["align"] for layer in charts.borders(axis, {})[1:]]

    assert sides(50, 50) == ["left"]
    assert sides(70, 30) == ["left", "right"]
