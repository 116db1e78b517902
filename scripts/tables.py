"""The tables of the README and of docs/, made from the committed records: python scripts/tables.py

A page says `<!-- results/NAME.json -->` where a table begins and `<!-- end of NAME -->` where it ends;
`<!-- results/ -->` and `<!-- end of summary -->` stand round the summary of them all,
`<!-- results/benchmark/ -->` and `<!-- end of speed -->` round that of the times,
`<!-- results/conditioning/ -->` and `<!-- end of systems -->` round that of what other conditions do, and
`<!-- results/conditioning/visual-questions.json by scenes -->` and `<!-- end of scenes -->` round its curves.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.conditioning` from wherever it is started

from metafilm.storage.atomic import atomic_write  # noqa: E402
from scripts import laboratory, projection  # noqa: E402
from scripts.comparing.table import to_target  # noqa: E402
from scripts.records import read  # noqa: E402
from scripts.rows import ARMS  # noqa: E402
from scripts.tabling import conditions, evaluations, overview  # noqa: E402

PAGES = (
    "README.md",
    "docs/results.md",
    "docs/adaptation.md",
    "docs/conditioning.md",
    "docs/film-lessons.md",
    "docs/regularisation.md",
)

TABLES: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    **dict.fromkeys(
        ("omniglot", "miniimagenet", "miniimagenet-pretrained", "sinusoids", "functions", "criteria"),
        evaluations.stages,
    ),
    **dict.fromkeys(("omniglot-plain", "omniglot-alphabets"), evaluations.by_seed),
    **dict.fromkeys((name for name in ARMS if name.endswith("-arms")), evaluations.over_identity),
    "adaptation": evaluations.adaptation,
    "drawings": evaluations.drawings,
    "styles": evaluations.mixture,
    "functions-floor": evaluations.floors,
    "laboratory": laboratory.table,
    "sweeps": laboratory.sweeps,
    "compare": to_target,
    "projection": projection.table,
    **{
        f"conditioning/{path.stem}": conditions.conditioned
        for path in sorted((ROOT / "results/conditioning").glob("*.json"))
    },
}


def filled(text: str) -> str:
    """A page with its tables as the records have them."""
    made = [
        (
            f"<!-- results/{name}.json -->",
            f"<!-- end of {name} -->",
            lambda name=name, table=table: table(read(name)),
        )
        for name, table in TABLES.items()
    ]
    made += [
        ("<!-- results/ -->", "<!-- end of summary -->", overview.summary),
        ("<!-- results/benchmark/ -->", "<!-- end of speed -->", overview.speed),
        ("<!-- results/conditioning/ -->", "<!-- end of systems -->", conditions.systems),
        (
            "<!-- results/conditioning/visual-questions.json by scenes -->",
            "<!-- end of scenes -->",
            conditions.curve,
        ),
    ]
    for begin, end, table in made:
        if begin in text:
            before, rest = text.split(begin)
            text = f"{before}{begin}\n{table()}\n{end}{rest.split(end)[1]}"
    return text


def main() -> None:
    for page in (ROOT / name for name in PAGES):
        atomic_write(page, filled(page.read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    main()
