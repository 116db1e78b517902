"""docs/conditioning.md is true: its Python runs, the first example is short, its tables say what there is."""

import re
from pathlib import Path

import pytest

from metafilm import conditioning

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "conditioning.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_runs(number, capsys) -> None:
    exec(compile(BLOCKS[number], "conditioning.md", "exec"), {})
    said = re.findall(r"print\(.*\)  # (.*)", BLOCKS[number])
    shown = capsys.readouterr().out
    assert shown
    assert all(line in shown for line in said)


def test_ten_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10


def test_what_it_names() -> None:
    rows = [name for name in re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) if name != "modulation"]
    assert set(rows) >= set(conditioning.MODULATIONS)
    modules = [name for name in rows if name not in conditioning.MODULATIONS]
    assert len(modules) == 7 and all(hasattr(conditioning, name) for name in modules)
    assert all(f"`{name}`" in PAGE for name in conditioning.DECODERS)
