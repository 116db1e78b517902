"""docs/conditioning.md is true: its Python runs, the first example is short, its tables say what there is."""

import re
import shlex
from pathlib import Path

import pytest

from metafilm import conditioning
from scripts.conditioning.commands import systems

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "conditioning.md").read_text(encoding="utf-8")
SYSTEMS = {system.script: system for system in systems().values()}
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_python_runs(number, capsys) -> None:
    exec(compile(BLOCKS[number], "conditioning.md", "exec"), {})
    said = re.findall(r"print\(.*\)  # (.*)", BLOCKS[number])
    shown = capsys.readouterr().out
    assert shown
    assert all(line in shown for line in said)


@pytest.mark.parametrize(
    "line", [x for b in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for x in b.splitlines()]
)
def test_commands_are_understood(line) -> None:
    _, script, *words = shlex.split(line)
    system = SYSTEMS[script]
    options = system.parsed(None, words)
    if options.do == "train":
        assert system.settings(options.arm, [*options.set, f"seed={options.seed}"]).iterations > 0


def test_ten_lines() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 10


def test_what_it_names() -> None:
    rows = [name for name in re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) if name != "modulation"]
    assert set(rows) >= set(conditioning.MODULATIONS)
    modules = [name for name in rows if name not in conditioning.MODULATIONS]
    assert len(modules) == 7 and all(hasattr(conditioning, name) for name in modules)
    assert all(f"`{name}`" in PAGE for name in conditioning.DECODERS)
