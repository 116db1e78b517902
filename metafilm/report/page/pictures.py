"""Pictures inside the page: small files in their addresses."""

from __future__ import annotations

import base64
import io

import torch
from torch import Tensor

from metafilm.report.page.html import Html, tag


def data_address(image: Tensor) -> str:
    """A picture ``[C, H, W]``, C 1 or 3, uint8 or float in [0, 1], as a ``data:`` address: PNG where it is
    grey or small, else JPEG."""
    from PIL import Image

    if image.dtype != torch.uint8:
        image = (image.clamp(0, 1) * 255).round().to(torch.uint8)
    if image.shape[0] not in (1, 3):
        image = image.float().mean(0, keepdim=True).round().to(torch.uint8)
    pixels = image.permute(1, 2, 0).contiguous().cpu().numpy()
    picture = Image.fromarray(pixels[:, :, 0] if image.shape[0] == 1 else pixels)
    content = io.BytesIO()
    kind = "png" if image.shape[0] == 1 or max(image.shape[1:]) <= 48 else "jpeg"
    picture.save(content, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def thumbnail(image: Tensor, said: str, class_: str = "") -> Html:
    """A picture with what it shows in words; shown larger than it is, in whole pixels, where it is small."""
    small = " pixels" if max(image.shape[1:]) <= 48 else ""
    return tag("img", src=data_address(image), alt=said, title=said, class_=f"thumb{small} {class_}".strip())
