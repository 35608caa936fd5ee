"""digits: scikit-learn's 1,797 handwritten digits, the smallest task of real images. No attention is needed to solve it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from nasattn.tasks.scans import handwritten_digits
from nasattn.tasks.task import Split, Task, TaskRequest, register_task, split_points

VAL_SHARE = 0.25  # not trained on: one half is for validation, the other is held out


@register_task("digits")
def digits(request: TaskRequest) -> Task:
    """10 classes, images ``(3, R, R)``: the 8 x 8 scans resized bilinearly, the grey value in every channel.

    The split is the same for every seed; the seed chooses the subset when fewer samples are asked for than there are.
    """
    scans = handwritten_digits()
    images = torch.from_numpy(scans.images)
    images = F.interpolate(images[:, None], size=(request.resolution,) * 2, mode="bilinear", align_corners=False)
    pixels = (images * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    labels = torch.from_numpy(scans.digits)
    order = np.random.default_rng(0).permutation(len(labels))
    train_order, *others = np.split(order, split_points(len(order), VAL_SHARE))
    rng = np.random.default_rng(request.seed)
    train = rng.permutation(train_order)[: request.samples]
    val = rng.permutation(others[request.held_out])[: request.val_samples]
    return Task(
        name="digits",
        classes=tuple(map(str, range(10))),
        train=Split(pixels[train].contiguous(), labels[train]),
        val=Split(pixels[val].contiguous(), labels[val]),
    )
