"""ClassPool: the images of one split, as one uint8 tensor sorted by class."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from episodes.attribute import Attribute
from episodes.counter import Stream, first_of_shuffled, words
from episodes.errors import EpisodesError

# Bounds on what normalisation constants are measured from: enough for three digits, and well under a second.
_MOMENT_IMAGES = 20_000
_MOMENT_PIXELS = 30_000_000


@dataclass(frozen=True)
class ClassPool:
    """One split of a data set.

    Class c's images are rows offsets[c] to offsets[c + 1] - 1 of `images`, which is kept as it is when it is
    contiguous. Images may have attributes besides their class, for episodes that draw by which they sort
    (:class:`episodes.CriterionSampler`). Raises EpisodesError when the parts don't fit.
    """

    images: Tensor  # [N, C, H, W] uint8
    offsets: Tensor  # [classes + 1] int64, from 0 to N, increasing
    class_names: tuple[str, ...]
    groups: Tensor | None = None  # [classes] int64: an alphabet, a superclass
    group_names: tuple[str, ...] = ()
    name: str = ""  # the data set
    split: str = ""
    attributes: tuple[Attribute, ...] = ()  # each with a value for each of the N images

    def __post_init__(self) -> None:
        images, offsets, classes = self.images, self.offsets, len(self.class_names)
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise EpisodesError(
                f"a pool's images are uint8 [N, C, H, W], got {images.dtype} {tuple(images.shape)}"
            )
        object.__setattr__(self, "images", images.contiguous())  # samplers copy whole rows
        if offsets.dtype != torch.int64 or tuple(offsets.shape) != (classes + 1,) or classes == 0:
            raise EpisodesError(
                f"a pool of {classes} classes needs offsets int64 [{classes + 1}] and at least one class, "
                f"got {offsets.dtype} {tuple(offsets.shape)}"
            )
        if offsets[0] != 0 or offsets[-1] != len(images) or (offsets.diff() <= 0).any():
            raise EpisodesError(
                f"a pool's offsets must rise from 0 to the number of images, {len(images)}, with no class "
                "empty; "
                f"they go from {int(offsets[0])} to {int(offsets[-1])}"
            )
        if len(set(self.class_names)) != classes:
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise EpisodesError(f"class {twice!r} appears twice in a pool: class names must be distinct")
        if self.groups is not None:
            if self.groups.dtype != torch.int64 or tuple(self.groups.shape) != (classes,):
                raise EpisodesError(f"groups must be int64 [{classes}], got {tuple(self.groups.shape)}")
            if self.groups.min() < 0 or self.groups.max() >= len(self.group_names):
                raise EpisodesError(
                    f"group numbers must be 0 to {len(self.group_names) - 1}, one per group name"
                )
        for attribute in self.attributes:
            if len(attribute.values) != len(images):
                raise EpisodesError(
                    f"attribute {attribute.name!r} has {len(attribute.values)} values for {len(images)} "
                    "images: give one per image"
                )
        if len({attribute.name for attribute in self.attributes}) != len(self.attributes):
            raise EpisodesError("a pool's attributes must have distinct names")

    def __repr__(self) -> str:
        title = " ".join(part for part in (self.name, self.split) if part) or "unnamed"
        return (
            f"ClassPool({title}: {len(self.images)} images of {self.image_shape}, {self.num_classes} classes)"
        )

    @classmethod
    def from_arrays(
        cls,
        images: Tensor | np.ndarray,
        labels: Tensor | np.ndarray | Sequence[int],
        class_names: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        name: str = "",
        split: str = "",
    ) -> "ClassPool":
        """A pool from images in any order.

        images: uint8 [N, C, H, W]. labels: [N] integers in [0, classes). class_names: one per class ("0",
        "1", ... by default). groups: the name of each class's group. Raises EpisodesError when shapes
        disagree or a class is empty.
        """
        pixels = torch.as_tensor(images)
        numbers = torch.as_tensor(labels).to(torch.int64).flatten()
        if len(numbers) != len(pixels) or len(pixels) == 0:
            raise EpisodesError(
                f"{len(pixels)} images and {len(numbers)} labels: there must be one label per image"
            )
        classes = len(class_names) if class_names is not None else int(numbers.max()) + 1
        if numbers.min() < 0 or numbers.max() >= classes:
            raise EpisodesError(
                f"labels go from {int(numbers.min())} to {int(numbers.max())} but there are {classes} classes"
            )
        names = tuple(class_names) if class_names is not None else tuple(str(c) for c in range(classes))
        counts = torch.bincount(numbers, minlength=classes)
        if (counts == 0).any():
            empty = [names[c] for c in (counts == 0).nonzero().flatten().tolist()]
            raise EpisodesError(
                f"no images for class {empty[0]!r} ({len(empty)} empty classes): leave them out"
            )
        if (numbers.diff() < 0).any():
            pixels = pixels[torch.argsort(numbers, stable=True)]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        group_names = tuple(sorted(set(groups))) if groups is not None else ()
        ids = torch.tensor([group_names.index(group) for group in groups]) if groups is not None else None
        return cls(pixels, offsets, names, ids, group_names, name, split)

    @classmethod
    def from_files(
        cls,
        files: Sequence[tuple[str, Sequence[Path]]],
        read: Callable[[Path], np.ndarray],
        groups: Sequence[str] | None = None,
        name: str = "",
        split: str = "",
    ) -> "ClassPool":
        """A pool read from picture files, several at a time.

        files: (class name, its files) per class, in the order wanted. read: path -> uint8 [C, H, W], all of
        one shape. Raises EpisodesError naming a file that can't be read.
        """
        from episodes.files.images import read_images

        paths = [path for _, members in files for path in members]
        labels = np.repeat(np.arange(len(files)), [len(members) for _, members in files])
        images = read_images(paths, read, f"reading {name or 'images'}")
        return cls.from_arrays(images, labels, [title for title, _ in files], groups, name, split)

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def counts(self) -> Tensor:
        """Images per class: int64 [classes]."""
        return self.offsets.diff()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def class_images(self, c: int) -> Tensor:
        """The images of class number c: uint8 [count, C, H, W], a view."""
        if not 0 <= c < self.num_classes:
            raise EpisodesError(
                f"class {c} of a pool with {self.num_classes} classes: choose 0 to {self.num_classes - 1}"
            )
        return self.images[self.offsets[c] : self.offsets[c + 1]]

    def subset(self, classes: Sequence[int] | Sequence[str]) -> "ClassPool":
        """The pool of some classes, in the order given, by number or by name. Copies their images.

        Raises EpisodesError naming a class that isn't there, or is there twice.
        """
        numbers = {title: number for number, title in enumerate(self.class_names)}
        chosen = []
        for wanted in classes:
            number = numbers.get(wanted, -1) if isinstance(wanted, str) else int(wanted)
            if not 0 <= number < self.num_classes:
                raise EpisodesError(f"no class {wanted!r} in {self!r}: see .class_names for those there are")
            chosen.append(number)
        if not chosen:
            raise EpisodesError("a subset of no classes: choose at least one")
        rows = torch.cat([torch.arange(int(self.offsets[c]), int(self.offsets[c + 1])) for c in chosen])
        counts = self.counts[chosen]
        groups, group_names = None, ()
        if self.groups is not None:
            old = [self.group_names[g] for g in self.groups[chosen].tolist()]
            group_names = tuple(sorted(set(old)))
            groups = torch.tensor([group_names.index(title) for title in old])
        return replace(
            self,
            images=self.images.index_select(0, rows),
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
            class_names=tuple(self.class_names[c] for c in chosen),
            groups=groups,
            group_names=group_names,
            attributes=tuple(attribute.of_rows(rows) for attribute in self.attributes),
        )

    def rotated_classes(self) -> "ClassPool":
        """Four times the classes: each at 0, 90, 180 and 270 degrees anticlockwise,
        "Alphabet/character01/rot090". So are their groups: "Alphabet/rot090" is an alphabet of its own, and a
        task within one has no characters that are told apart by how they are turned.

        Omniglot's convention in the Vinyals protocol (Santoro et al. 2016; Vinyals et al. 2016): a rotated
        character is a class of its own, also at test. Raises EpisodesError when images aren't square, or have
        attributes: what a turned image's values are, nobody has said.
        """
        require_square(self.image_shape)
        if self.attributes:
            raise EpisodesError(
                f"{self!r} has attributes, which need not hold for turned images: leave its classes be"
            )
        turned = torch.stack([torch.rot90(self.images, k, (-2, -1)) for k in range(4)])  # [4, N, C, H, W]
        rows = [
            k * len(self.images) + torch.arange(int(self.offsets[c]), int(self.offsets[c + 1]))
            for c in range(self.num_classes)
            for k in range(4)
        ]
        counts = self.counts.repeat_interleave(4)
        return replace(
            self,
            images=turned.flatten(0, 1).index_select(0, torch.cat(rows)),
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
            class_names=tuple(f"{title}/rot{90 * k:03d}" for title in self.class_names for k in range(4)),
            groups=None if self.groups is None else (4 * self.groups[:, None] + torch.arange(4)).flatten(),
            group_names=tuple(f"{title}/rot{90 * k:03d}" for title in self.group_names for k in range(4)),
        )

    def with_channels(self, channels: int) -> "ClassPool":
        """The pool in another number of channels, so that pools can be mixed: grey to RGB by repeating, RGB
        to grey by luminance (ITU-R 601, as Pillow's mode "L")."""
        have = self.image_shape[0]
        if channels == have:
            return self
        if have == 1 and channels == 3:
            return replace(self, images=self.images.repeat(1, 3, 1, 1))
        if have == 3 and channels == 1:
            weights = torch.tensor([19595, 38470, 7471], dtype=torch.int32)
            grey = [
                (part.to(torch.int32) * weights[:, None, None]).sum(1) + 0x8000
                for part in self.images.split(4096)
            ]
            return replace(self, images=(torch.cat(grey) >> 16).to(torch.uint8)[:, None])
        raise EpisodesError(f"can't turn {have} channels into {channels}: 1 to 3 and 3 to 1 are possible")

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Per-channel mean and standard deviation of the pixels over [0, 1]: float32 [C] each.

        From at most 20,000 images (and 30 million pixels), always the same ones.
        """
        images = self.images
        most = min(_MOMENT_IMAGES, max(_MOMENT_PIXELS // (images.shape[2] * images.shape[3]), 1))
        if len(images) > most:
            keys = words(0, [0], Stream.IMAGES, (len(images),))[0]
            images = images[torch.from_numpy(np.sort(first_of_shuffled(keys, most)))]
        # Counting the 256 values of a channel is exact and reads each pixel once, whatever the machine's
        # summation order.
        values = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in range(images.shape[1]):
            counts = torch.zeros(256, dtype=torch.float64)
            for part in images[:, channel].split(2048):
                counts += torch.bincount(part.flatten().to(torch.int32), minlength=256)
            share = counts / counts.sum()
            mean = (share * values).sum()
            means.append(mean)
            stds.append((share * (values - mean) ** 2).sum().sqrt())
        return torch.stack(means).float(), torch.stack(stds).float()


def require_square(shape: tuple[int, int, int]) -> None:
    """EpisodesError unless images of this (C, H, W) can be turned by 90 degrees."""
    if shape[1] != shape[2]:
        raise EpisodesError(
            f"images of {shape[1]} x {shape[2]} can't be rotated by 90 degrees: resize them to a square"
        )
