"""The table of what the look-alike server must do names only tests that exist."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "demo"
ROWS = [line for line in (FOLDER / "LINES.md").read_text().splitlines() if line.startswith("| R§")]


def test_every_line_is_there():
    lines = {row.split("|")[1].strip() for row in ROWS}
    assert lines == {f"R§11.{it}" for it in range(1, 9)} | {f"R§12.{it}" for it in range(1, 13)}


def test_every_test_exists_and_names_its_section():
    for row in ROWS:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, row
        for module, name in named:
            tree = ast.parse((FOLDER / module).read_text())
            found = [it for it in tree.body if isinstance(it, ast.FunctionDef) and it.name == name]
            assert len(found) == 1, f"{module} has no {name}"
            assert "R§" in (ast.get_docstring(found[0]) or ""), f"{module}::{name} names no section"
