"""The README is true: its Python runs, its commands parse, its numbers are those of results/."""

import ast
import json
import re
import shlex
from pathlib import Path

import pytest

from metafilm.cli import commands as cli
from scripts import tables

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"), ids=["own", "first", "networks", "pair"])
def test_python_runs(code, tmp_path, pictures, capsys):
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    if "few_shot" in names:
        assert capsys.readouterr().out == "['a' 'b']\n"
    elif "network" in names and "task" in names:
        assert 1_000 < (tmp_path / "task.safetensors").stat().st_size < 20_000
        found = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
        before, _, after = found["accuracy_by_step"]
        assert 0 < before - after < found["ci95"]  # as the text below says
    elif "model" in names:
        assert any(value.grad.any() for value in names["reader"].parameters() if value.grad is not None)
        assert names["network"].conv1.weight.grad.any()
    else:
        assert not any("film" in name for name, _ in names["plain"].named_parameters())


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("metafilm ")]


@pytest.mark.parametrize("line", commands())
def test_commands_are_understood(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert cli.parse(shlex.split(line)[1:]) is not None


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_exist(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_those_of_the_records(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- results/" in text and tables.filled(text) == text


def test_every_result_row_is_quoted_to_the_digit():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    for name in ("omniglot", "miniimagenet", "miniimagenet-pretrained", "sinusoids", "criteria", "drawings"):
        for row in json.loads((ROOT / "results" / f"{name}.json").read_text()):
            digits, value = (4, row["mse"]) if "mse" in row else (2, row["accuracy"])
            quoted = f"{value:.{digits}f} ± {row['ci95']:.{digits}f}"
            assert quoted in page, f"{name}: {quoted} ({row['command']})"


def test_the_demo_is_described_as_it_was_recorded():
    known, unseen = json.loads((ROOT / "results" / "demo.json").read_text())
    first, last = (f"{row['accuracy_by_step'][0]:.0f} → {row['accuracy']:.0f} %" for row in (known, unseen))
    assert f"{first} in known styles and {last} in unseen ones" in README


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
