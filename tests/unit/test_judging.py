"""Where rules and preference models meet."""

from services.config import RewardWeights, Shaping
from services.judging import score_function
from services.tasks.general import prompts
from services.tasks.sources import general_problem
from services.types import Completion, Problem, Verdict

PUZZLE = Problem("p", "countdown", "", '{"numbers": [3, 4], "target": 7}', "en")
RIGHT = "<think> I try 3 + 4 = 7 </think> <answer> 3 + 4 </answer>"
WRONG = "<think> I try 4 - 3 = 1 </think> <answer> 4 - 3 </answer>"


def completion(text: str, tokens: int = 4) -> Completion:
    return Completion(text, (1,) * tokens, (-0.1,) * tokens, truncated=False)


class Fixed:
    """A preference model that always says the same and remembers what it was asked."""

    def __init__(self, value: float) -> None:
        self.value = value
        self.asked: list[tuple[str, str]] = []

    def rewards(self, items) -> list[float]:
        self.asked += items
        return [self.value] * len(items)


def test_scores_have_the_shape_of_the_groups():
    groups = [[completion(RIGHT), completion(WRONG)], [completion(WRONG)]]
    with score_function(RewardWeights()) as score:
        scores = score([PUZZLE, PUZZLE], groups)
    assert [[row.verdict for row in group] for group in scores] == [
        [Verdict.CORRECT, Verdict.WRONG], [Verdict.WRONG],
    ]  # fmt: skip
    assert [[row.total for row in group] for group in scores] == [[2.0, 1.0], [1.0]]


def test_begun_groups_score_like_others():
    groups = [[completion(RIGHT), completion(WRONG), completion(RIGHT)]]
    with score_function(RewardWeights()) as score:
        plain = score([PUZZLE], groups)
        score.begin(PUZZLE, groups[0])
        assert score([PUZZLE], groups) == plain


def test_each_general_prompt_asks_one_judge():
    harmful = next(p for p in prompts("train") if p.kind == "harmful")
    polite = next(p for p in prompts("train") if p.kind != "harmful")
    helpful, safe = Fixed(0.25), Fixed(0.75)
    problems = [general_problem(harmful), PUZZLE, general_problem(polite)]
    groups = [[completion(RIGHT)] for _ in problems]
    with score_function(RewardWeights(), {"helpfulness": helpful, "safety": safe}) as score:
        scores = [group[0] for group in score(problems, groups)]
    assert [row.parts.get("preference") for row in scores] == [0.75, None, 0.25]
    assert [row.parts.get("accuracy") for row in scores] == [None, 1.0, None]
    assert safe.asked == [(harmful.text, RIGHT)]
    assert helpful.asked == [(polite.text, RIGHT)]


def test_optional_parts_reach_the_formula():
    shaping = Shaping(length=0.5)
    with score_function(RewardWeights(), shaping=shaping, target_language="zh") as score:
        [[row]] = score([PUZZLE], [[completion(RIGHT, tokens=5)]], max_tokens=10)
    assert row.parts["length"] == -0.5
    assert row.parts["language"] == 0.0
    assert row.total == 2.0 - 0.25
