"""A run that trains on added problems: frozen at its start, and written down with them."""

import json

from flows.running import run_pipeline
from services.pool import open_pool
from services.store import store_url
from services.tasks.countdown import is_held_out


def test_a_run_freezes_the_pool_trains_on_it_and_says_so(micro, home, tmp_path):
    pool = open_pool(store_url({"R1_HOME": str(home)}))
    rows = [
        {"question": f"which sign between {n} 1 gives {n + 1} ?", "kind": "countdown", "level": 2,
         "answer": {"numbers": [n, 1], "target": n + 1, "ordered": True, "operators": "+-"}}
        for n in range(2, 9)
        if not is_held_out([n, 1])
    ]  # fmt: skip
    file = tmp_path / "new.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    pool.add_file(file, settings=micro.problems, who="ann")
    problems = micro.problems.model_copy(update={"pool": "now", "pool_share": 0.5})
    recipe = micro.model_copy(
        update={"problems": problems, "zero": micro.zero.model_copy(update={"steps": 1})}
    )
    report = run_pipeline(recipe, home=home, until="zero")
    assert {tuple(row.used_by) for row in pool.problems()} == {(report.run_id,)}
    again = run_pipeline(recipe, home=home, until="zero")
    assert again.nothing_to_do, "the same pool is the same run"
    assert again.run_id == report.run_id
    file.write_text(json.dumps({"question": "What is 2 + 40 ?", "answer": "42", "kind": "math"}))
    pool.add_file(file, settings=micro.problems, who="ann")
    assert pool.unused() == 1
    other = run_pipeline(recipe, home=home, until="zero")
    assert other.run_id != report.run_id
    assert other.outcomes == {"zero": "finished"}
    assert pool.unused() == 0
