"""Drawn images of coloured shapes, with their boxes and masks: data that the examples need not download."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

CLASSES = ("background", "square", "disc", "triangle")


def draw(seed: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One to three shapes on noise.

    Returns:
        The image ``(3, side, side)``, 0..1; boxes ``(N, 4)`` as left, top, right, bottom; labels ``(N,)``, 1 to 3; and the
        class of each pixel, ``(side, side)``.
    """
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 90, (side, side, 3), dtype=np.uint8))
    mask = Image.new("L", (side, side))
    boxes, labels = [], []
    for _ in range(rng.integers(1, 4)):
        label, extent = int(rng.integers(1, 4)), int(rng.integers(side // 5, side // 2))
        left, top = (int(v) for v in rng.integers(0, side - extent, 2))
        box = (left, top, left + extent, top + extent)
        colour = tuple(int(v) for v in rng.integers(120, 256, 3))
        for canvas, fill in ((ImageDraw.Draw(image), colour), (ImageDraw.Draw(mask), label)):
            if label == 1:
                canvas.rectangle(box, fill=fill)
            elif label == 2:
                canvas.ellipse(box, fill=fill)
            else:
                canvas.polygon([(left, box[3]), (left + extent / 2, top), (box[2], box[3])], fill=fill)
        boxes.append(box)
        labels.append(label)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return pixels, torch.tensor(boxes, dtype=torch.float32), torch.tensor(labels), torch.from_numpy(np.array(mask)).long()
