"""The model cards of the weights that come with the package, beside them: python scripts/cards.py

Each says what the weights are, what they have seen, and their committed results.
"""

import json
from pathlib import Path
from typing import Any

from metafilm import MetaFiLM
from metafilm.publishing.card import card
from metafilm.storage.atomic import atomic_write

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = ROOT / "metafilm" / "storage" / "shipped"
RESULTS = {"omniglot-conv4": "omniglot", "drawings-conv4": "drawings"}
"""Weights -> where their rows are: results/NAME.json."""


def records(weights: str) -> list[dict[str, Any]]:
    """The rows of these weights, and of no others that stand beside them."""
    rows = json.loads((ROOT / "results" / f"{RESULTS[weights]}.json").read_text())
    others = [f"metafilm eval {name} " for name in RESULTS if name != weights]
    return [row for row in rows if not row["command"].startswith(tuple(others))]


def written(weights: str) -> str:
    """The card. Omniglot's drawings are under the MIT licence, as this package is."""
    return card(MetaFiLM.from_pretrained(weights), weights, records(weights), "mit", None)


def main() -> None:
    for weights in RESULTS:
        atomic_write(SHIPPED / f"{weights}.md", written(weights).encode())


if __name__ == "__main__":
    main()
