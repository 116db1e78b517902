"""docs/your-own-pictures.md is true: its Python runs, its commands parse, its table is the record's."""

import json
import re
import shlex
from pathlib import Path

import pytest

from metafilm.cli import commands as cli
from scripts.probabilities import table

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "your-own-pictures.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_runs(number, pictures, capsys) -> None:
    exec(compile(blocks("python")[number], "your-own-pictures.md", "exec"), {})
    shown = capsys.readouterr().out
    assert shown
    if number == 0:
        assert shown == "['a' 'b']\n"


def test_three_lines_from_import_to_prediction() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) == 3 and lines[0].startswith("import") and "predict" in lines[-1]


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_commands_are_understood(line) -> None:
    assert cli.parse(shlex.split(line)[1:]) is not None


def test_the_table_is_the_record_s() -> None:
    rows = json.loads((ROOT / "results" / "probabilities.json").read_text())
    quoted = PAGE.partition("<!-- results/probabilities.json -->\n")[2].partition("\n<!-- end of")[0]
    assert quoted == table(rows)
