"""The rooms: imports go downwards, nothing goes in a circle, each room says what it offers."""

import ast
import importlib
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "scripts"))
house = importlib.import_module("house")
sys.path.pop(0)

FOLDERS = sorted(
    path
    for package in house.FLOORS
    for path in (HERE / package).rglob("*")
    if path.is_dir() and (path / "__init__.py").is_file()
)


def test_every_room_has_its_floor() -> None:
    found = {house.room(name) for name in house.modules() if "." in name} - {"metafilm.__main__"}
    assert found == {f"{package}.{name}" for package, rooms in house.FLOORS.items() for name in rooms}


def test_imports_go_downwards() -> None:
    for package, rooms in house.FLOORS.items():
        rank = {f"{package}.{name}": i for i, name in enumerate(rooms)}
        upwards = [
            f"{who} imports {what}"
            for who, what in sorted(house.imports())
            if house.room(who) in rank
            and house.room(what) in rank
            and rank[house.room(what)] > rank[house.room(who)]
        ]
        assert not upwards, "\n".join(upwards)


def test_episodes_knows_nothing_of_metafilm() -> None:
    assert not [pair for pair in house.imports() if pair[0].startswith("episodes") and "metafilm" in pair[1]]


def test_nobody_imports_the_command_line() -> None:
    users = {who for who, what in house.imports() if house.room(what) == "metafilm.cli"}
    assert {house.room(who) for who in users} <= {"metafilm.cli", "metafilm.__main__"}


def test_nothing_is_imported_in_a_circle() -> None:
    below: dict[str, set[str]] = {}
    for who, what in house.imports() - house.ONLY_UPWARD:
        below.setdefault(who, set()).add(what)
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in sorted(below.get(module, ())):
                visit(other, (*path, module))
            done.add(module)

    for module in sorted(below):
        visit(module, ())
    assert set(below) <= done


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(HERE)))
def test_a_room_says_what_it_offers(folder) -> None:
    text = (folder / "__init__.py").read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "a room's first line says what it is for"
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    assert len(listed) == 1
    room = importlib.import_module(".".join(folder.relative_to(HERE).parts))
    assert all(hasattr(room, name) for name in listed[0])
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    assert 2 <= len(files) <= 12, "a room holds few files, and more than one"


def test_the_picture_is_the_imports() -> None:
    assert house.PAGE.read_text(encoding="utf-8") == house.page_with_picture(), (
        "docs/architecture.md shows another house; python scripts/house.py draws it anew"
    )
