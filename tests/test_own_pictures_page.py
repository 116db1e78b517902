"""docs/your-own-pictures.md: three lines to a first answer, and its tables are the records'."""

import json
import re
from pathlib import Path

import pytest

from scripts import probabilities, reuse

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "your-own-pictures.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_first_lines_name_the_classes(pictures, capsys) -> None:
    exec(compile(blocks("python")[0], "your-own-pictures.md", "exec"), {})
    assert capsys.readouterr().out == "['a' 'b']\n"


def test_three_lines_from_import_to_prediction() -> None:
    lines = [line for line in blocks("python")[0].splitlines() if line.strip()]
    assert len(lines) == 3 and lines[0].startswith("import") and "predict" in lines[-1]


@pytest.mark.parametrize("script", [probabilities, reuse], ids=lambda script: script.OUT.stem)
def test_the_tables_are_the_records(script) -> None:
    quoted = PAGE.partition(f"{script.BEGIN}\n")[2].partition(f"\n{script.END}")[0]
    assert quoted == script.table(json.loads(script.OUT.read_text()))
