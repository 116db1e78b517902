"""Weights and results that are no numbers: named, instead of scored as if they were."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from metafilm.errors import NotFinite


def require_finite_weights(learner: nn.Module) -> None:
    """Raises NotFinite naming the first of the learner's tensors with NaN or infinite values."""
    bad = not_finite(learner.state_dict())
    if bad:
        more = f" and {len(bad) - 1} other tensors" if len(bad) > 1 else ""
        raise NotFinite(
            f"the learner's weights are not finite: {bad[0]}{more}; load undamaged weights, or train anew"
        )


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """``NAME (n of m values)`` of each tensor with NaN or infinite values."""
    found = {name: value.numel() - int(value.isfinite().sum()) for name, value in tensors.items()}
    return [f"{name} ({n} of {tensors[name].numel()} values)" for name, n in found.items() if n]
