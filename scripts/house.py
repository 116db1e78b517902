"""The house as its imports draw it: which room leans on which, for docs/architecture.md and its test.

`python scripts/house.py` writes the picture between the two marks in docs/architecture.md anew.
A room is a folder of one of the two packages, or a file in a package's root. All imports count: those inside
functions, and those for type checkers alone.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PAGE = HERE / "docs" / "architecture.md"
BEGIN, END = "<!-- the house, by scripts/house.py -->", "<!-- end of the house -->"

# From the ground up: a room imports from those before it.
FLOORS = {
    "episodes": [
        "errors",
        "progress",
        "counter",
        "episode",
        "attribute",
        "files",
        "pool",
        "sampling",
        "transforms",
        "image_sampler",
        "sampler",
        "criteria",
        "datasets",
        "interop",
    ],
    "metafilm": [
        "errors",
        "engine",
        "film",
        "norms",
        "backbones",
        "heads",
        "conditioning",
        "config",
        "storage",
        "publishing",
        "learner",
        "evaluation",
        "serving",
        "classifier",
        "training",
        "laboratory",
        "report",
        "app",
        "cli",
    ],
}
# `MetaFiLM.from_pretrained`, a method of what it builds.
ONLY_UPWARD = {("metafilm.learner.network", "metafilm.learner.build")}


def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the two packages."""
    found = {}
    for package in FLOORS:
        for path in sorted((HERE / package).rglob("*.py")):
            name = ".".join(path.relative_to(HERE).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imports() -> set[tuple[str, str]]:
    """(who, what) for every import of one of our modules in another."""
    known = modules()
    return {
        (name, other) for name, path in known.items() for other in _imported(path, known) if other != name
    }


def _imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if (name := full if full in known else node.module) in known:
                    yield name
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)


def room(module: str) -> str:
    """`metafilm.film.layer` lies in `metafilm.film`."""
    return ".".join(module.split(".")[:2])


def arrows() -> set[tuple[str, str]]:
    """(room, room it imports from), roots and errors aside: everything may use those."""
    return {
        (room(who), room(what))
        for who, what in imports()
        if room(who) != room(what)
        and not room(who).endswith("__main__")
        and all("." in module for module in (who, what))
        and not what.endswith(".errors")
    }


def needed(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that no chain of other arrows implies."""
    below: dict[str, set[str]] = {}
    for who, what in edges:
        below.setdefault(who, set()).add(what)

    def reach(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(below.get(start, ()))
        while waiting:
            if (place := waiting.pop()) not in found:
                found.add(place)
                waiting += below.get(place, ())
        return found

    return {
        (who, what)
        for who, what in edges
        if not any(what in reach(other) for other in below[who] if other != what)
    }


def picture() -> str:
    """The house as a Mermaid graph, top floor first."""
    lines = ["```mermaid", "graph TD"]
    for package, rooms in reversed(FLOORS.items()):
        lines.append(f"  subgraph {package}")
        shown = [name for name in reversed(rooms) if name != "errors"]
        lines += [f"    {package}.{name}[{name}]" for name in shown]
        lines.append("  end")
    lines += [f"  {who} --> {what}" for who, what in sorted(needed(arrows()))]
    return "\n".join([*lines, "```"])


def page_with_picture() -> str:
    """The page's text with the picture as it is now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{picture()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page_with_picture(), encoding="utf-8")
