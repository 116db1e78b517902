"""docs/your-own-pictures.md: three lines to a first answer, and its table is the record's."""

import json
import re
from pathlib import Path

from scripts.probabilities import table

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


def test_the_table_is_the_record_s() -> None:
    rows = json.loads((ROOT / "results" / "probabilities.json").read_text())
    quoted = PAGE.partition("<!-- results/probabilities.json -->\n")[2].partition("\n<!-- end of")[0]
    assert quoted == table(rows)
