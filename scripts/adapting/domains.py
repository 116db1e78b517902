"""Where the tasks of scripts/adaptation.py come from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import episodes
from episodes import ClassPool, EpisodeSampler
from episodes.transforms import styles

WAYS, QUERIES, SEED = 5, 15, 0


def digits(side: int) -> ClassPool:
    """Real handwriting of 43 people: the 1,797 digits of 8×8 pixels that come with scikit-learn (UCI's test
    set of "Optical recognition of handwritten digits", Alpaydin & Kaynak 1998, CC BY 4.0), resized."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    small = (images.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)) for image in small
    ]
    return ClassPool.from_arrays(np.stack(large)[:, None], labels, [str(digit) for digit in range(10)])


@dataclass(frozen=True)
class Domain:
    """A data set and how its tasks are drawn.

    ``most``: shots at most, where its classes are small (those of Omniglot and strokes have 20 images, and 5
    stay for the queries). ``made``: side -> pool, instead of the registry's.
    """

    name: str
    scheme: str | None = None
    within_group: bool = False
    style: str = "none"
    most: int = 20
    made: Callable[[int], ClassPool] | None = None

    def sampler(self, split: str, shots: int, shape: tuple[int, ...], root: Path | None) -> EpisodeSampler:
        side = shape[-1]
        if self.made is not None:
            pool = self.made(side)
        else:
            pool = episodes.load(self.name, split, root=root, image_size=side, scheme=self.scheme)
        queries = min(QUERIES, int(pool.counts.min()) - shots)
        return EpisodeSampler(
            pool.with_channels(shape[0]),
            WAYS,
            shots,
            queries,
            SEED,
            within_group=self.within_group,
            transform=styles.by_name(self.style),
        )


DOMAINS = {
    "omniglot-within": Domain("omniglot", within_group=True, most=15),
    "omniglot-across": Domain("omniglot", most=15),
    "strokes-unseen-styles": Domain("strokes", style="unseen-strokes", most=15),
    "digits": Domain("digits", made=digits),
    "miniimagenet": Domain("miniimagenet"),
}
