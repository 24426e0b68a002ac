"""Policy files: bundled ones, changes of a user, messages with their mend, recipes that tighten."""

import pytest

from services.config import Gate
from services.errors import PolicyError
from services.policies import FOLDER, Policy, load_policy, policy_files, tightened


def write(home, name, text):
    folder = home / "policies"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("model", [path.stem for path in FOLDER.glob("*.toml")])
def test_bundled_policies_are_valid_and_ask_for_pairs_and_smoke(model, tmp_path):
    policy = load_policy(model, tmp_path)
    assert policy.description
    assert policy.margin["pass@1"] > 0
    assert policy.smoke


def test_students_share_a_file_and_a_user_changes_single_keys(tmp_path):
    write(tmp_path, "r1-distill", "min_problems = 40\n[margin]\n'pass@1' = 0.1")
    write(tmp_path, "r1-distill-small", "[approval]\nrequired = 'always'\nhours = 2")
    policy = load_policy("r1-distill-small", tmp_path)
    assert policy.min_problems == 40
    assert policy.margin == {"pass@1": 0.1, "language/consistency": 0.05, "format": 0.05}
    assert (policy.approval.required, policy.approval.hours) == ("always", 2)
    other = load_policy("r1-distill-large", tmp_path)
    assert other.approval.required == "never"
    names = [path.name for path in policy_files("r1-distill-small", tmp_path)]
    assert names == ["r1-distill.toml", "r1-distill.toml", "r1-distill-small.toml"]


def test_a_model_without_a_file_has_the_defaults(tmp_path):
    assert load_policy("other", tmp_path) == Policy()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("minimun = {}", "minimun.*Did you mean minimum"),
        ("[approval]\nrequird = 'always'", r"approval\.requird.*Did you mean approval\.required"),
        ("[margin]\n'pass@1' = -0.1", "margin is how much worse"),
        ("[approval]\nat_timeout = 'shrug'", "at_timeout.*Got 'shrug'"),
        ("smoke = ", "not valid TOML"),
    ],
)
def test_a_bad_file_is_named_with_its_mend(tmp_path, text, says):
    write(tmp_path, "r1", text)
    with pytest.raises(PolicyError, match=says) as refused:
        load_policy("r1", tmp_path)
    assert "r1.toml" in str(refused.value)


def test_a_recipe_asks_for_more_and_never_for_less():
    policy = Policy(minimum={"safety": 0.9}, gain={"pass@1": 0.1}, margin={"pass@1": 0.05})
    harder = tightened(
        policy, Gate(min_safety=0.95, min_pass_at_1=0.5, min_gain_over_base=0.2, max_regression=0.0)
    )
    assert harder.minimum == {"safety": 0.95, "pass@1": 0.5, "format": 0.9}
    assert (harder.gain, harder.margin) == ({"pass@1": 0.2}, {"pass@1": 0.0})
    planted = Gate(min_safety=0.1, min_gain_over_base=-1.0, min_format=0.0)
    assert tightened(policy, planted) == policy
