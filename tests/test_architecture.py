"""The shape of the code: arrows between rooms, sizes of files and functions, names."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("flows", "services", "dashboard", "infra")
SOURCES = sorted(
    path
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if "versions" not in path.parts  # migrations are history, not code that is read
)
BANNED_NAMES = {"utils", "helpers", "common", "manager", "misc"}
MOST_LINES = 410
MOST_FUNCTION_LINES = 65


def test_arrows_between_rooms():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines"


def test_no_module_is_named_after_nothing():
    names = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not names & BANNED_NAMES


def test_every_module_says_what_it_is():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if text.strip():
            assert ast.get_docstring(ast.parse(text)), path


def test_no_pickle_is_read_and_no_foreign_code_is_run():
    forbidden = re.compile(r"trust_remote_code=True|torch\.load\(|pickle\.load|unsafe_allow_html=T")
    for path in SOURCES:
        assert not forbidden.search(path.read_text(encoding="utf-8")), path
