"""Characters drawn on the app's page are recognised: Omniglot's own drawings, traced back to strokes.

Validation classes: what the page makes of strokes and of files was settled on them.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import episodes
from episodes.datasets.omniglot import find_omniglot, list_characters, read_drawing, split_characters
from metafilm import MetaFiLM
from metafilm.app.pictures import Look, from_file, from_strokes

pytestmark = [pytest.mark.real("omniglot"), pytest.mark.slow]
CLASSES, DRAWINGS, TASKS = 20, 5, 20  # docs/pages.md: 40, 6, 50
AROUND = [(-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1)]


def thinned(ink: np.ndarray) -> np.ndarray:
    """Lines one pixel wide (Zhang & Suen, Communications of the ACM 27, 1984)."""
    kept = np.pad(ink, 1).astype(np.uint8)
    height, width = ink.shape
    changed = True
    while changed:
        changed = False
        for corners in (((0, 2, 4), (2, 4, 6)), ((0, 2, 6), (0, 4, 6))):
            near = [kept[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y, x in AROUND]
            count = sum(one.astype(int) for one in near)
            turns = sum((near[i] == 0) & (near[(i + 1) % 8] == 1) for i in range(8))
            gone = (kept[1:-1, 1:-1] == 1) & (count >= 2) & (count <= 6) & (turns == 1)
            for a, b, c in corners:
                gone &= near[a] * near[b] * near[c] == 0
            kept[1:-1, 1:-1][gone] = 0
            changed |= bool(gone.any())
    return kept[1:-1, 1:-1].astype(bool)


def traced(file: Path) -> list[list[list[float]]]:
    """A drawing's strokes as the page would send them: along its lines, straight on where they cross."""
    ink = np.asarray(Image.open(file).convert("L")) < 128
    left = {(int(y), int(x)) for y, x in np.argwhere(thinned(ink))}

    def onward(point, among):
        return [(point[0] + y, point[1] + x) for y, x in AROUND if (point[0] + y, point[1] + x) in among]

    strokes = []
    while left:
        start = min(left, key=lambda point: (len(onward(point, left)), point))
        path = [start]
        left.discard(start)
        while ahead := onward(path[-1], left):
            if len(path) > 1:
                way = np.subtract(path[-1], path[-2])
                ahead.sort(key=lambda point: -float(way @ np.subtract(point, path[-1])))
            path.append(ahead[0])
            left.discard(ahead[0])
        strokes.append([[(x + 0.5) / 105, (y + 0.5) / 105] for y, x in path])
    return strokes


@pytest.fixture(scope="module")
def drawings() -> list[list[Path]]:
    """Some drawings of each of some validation characters."""
    base = find_omniglot(episodes.data_root())
    assert base is not None
    files = {name: (part, paths) for name, part, paths in list_characters(base)}
    names = split_characters({name: part for name, (part, _) in files.items()}, "vinyals")["val"]
    chosen = sorted(names)[:: len(names) // CLASSES][:CLASSES]
    return [files[name][1][:DRAWINGS] for name in chosen]


def accuracy(learner: MetaFiLM, support: torch.Tensor, query: torch.Tensor) -> float:
    """5-way 2-shot, in percent. Pictures are [classes, drawings, 1, 28, 28]."""
    generator = np.random.default_rng(0)
    right = []
    for _ in range(TASKS):
        classes = generator.choice(len(support), 5, replace=False)
        order = generator.permutation(DRAWINGS)
        shots, asked = support[classes][:, order[:2]], query[classes][:, order[2:]]
        task = learner.adapt(shots.flatten(0, 1), torch.arange(5).repeat_interleave(2))
        said = torch.tensor(task.predict(asked.flatten(0, 1)))
        right.append((said == torch.arange(5).repeat_interleave(DRAWINGS - 2)).double().mean())
    return 100 * float(torch.stack(right).mean())


def test_traced_and_uploaded_drawings_are_recognised_like_the_originals(drawings, capsys):
    learner = MetaFiLM.from_pretrained("omniglot-conv4")
    look = Look.of(learner)

    def all_of(read) -> torch.Tensor:
        classes = [[torch.as_tensor(read(file)) for file in files] for files in drawings]
        return torch.stack([torch.stack(pictures) for pictures in classes])

    original = all_of(lambda file: read_drawing(file, 28))
    drawn = all_of(lambda file: from_strokes(traced(file), look))
    uploaded = all_of(lambda file: from_file(file.read_bytes(), look))
    shares = {
        "originals": accuracy(learner, original, original),
        "drawn": accuracy(learner, drawn, drawn),
        "uploaded": accuracy(learner, uploaded, uploaded),
    }
    with capsys.disabled():
        print(", ".join(f"{name} {value:.1f} %" for name, value in shares.items()))
    assert all(value > shares["originals"] - 4 and value > 95 for value in shares.values()), shares
    # the ink of a drawing is as much as Omniglot's
    assert float(drawn.double().mean()) == pytest.approx(float(original.double().mean()), rel=0.1)
