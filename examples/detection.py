"""An exported placement as the backbone of torchvision's Faster R-CNN with a feature pyramid, trained on drawn shapes.

nasattn export STUDY --best --out model
python examples/detection.py --model model --steps 200
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from typing import Any

import timm
import torch
from shapes import CLASSES, draw
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

import nasattn  # noqa: F401  (timm then knows the hosts)

FINEST = 4  # pixels: maps finer than every fourth one are left out, as is usual


class PyramidBackbone(nn.Module):
    """The stages of a timm model under a feature pyramid: ``(B, 3, H, W)`` -> maps ``"0"``, ``"1"``, ..., ``"pool"`` of 256 channels.

    Args:
        body: A timm model built with ``features_only=True``.
    """

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body
        info = [(i, f["num_chs"], f["reduction"]) for i, f in enumerate(body.feature_info.get_dicts()) if f["reduction"] >= FINEST]
        if not info:
            raise SystemExit(f"the model has no stage of a reduction of {FINEST} or more: a detector needs one, choose another host")
        self.taken, self.channels, self.reductions = zip(*info, strict=True)
        self.out_channels = 256
        self.fpn = FeaturePyramidNetwork(list(self.channels), self.out_channels, extra_blocks=LastLevelMaxPool())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        maps: dict[str, Tensor] = self.fpn(OrderedDict((str(n), features[i]) for n, i in enumerate(self.taken)))
        return maps


def build_detector(folder: str, side: int, frozen_bn: bool = False) -> FasterRCNN:
    """Faster R-CNN on the exported model in *folder*, for images of *side* pixels.

    With *frozen_bn* its BatchNorms keep their statistics, as is usual when small batches tune trained weights; a fresh export
    has none worth keeping.
    """
    body = timm.create_model(f"local-dir:{folder}", pretrained=True, features_only=True)
    backbone = PyramidBackbone(freeze_batch_norm_2d(body) if frozen_bn else body)
    sizes = tuple((4 * r,) for r in (*backbone.reductions, 2 * backbone.reductions[-1]))
    names = [str(n) for n in range(len(backbone.taken))]
    return FasterRCNN(
        backbone,
        num_classes=len(CLASSES),
        min_size=side,
        max_size=side,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign(names, output_size=7, sampling_ratio=2),
    )


def main(arguments: list[str] | None = None) -> list[float]:
    """Train and print. Returns the loss of each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="folder that `nasattn export` wrote")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--frozen-bn", action="store_true", help="keep the BatchNorms' statistics: for weights that are trained")
    options = parser.parse_args(arguments)

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = build_detector(options.model, options.size, options.frozen_bn).to(device).train()
    optimizer = torch.optim.AdamW([p for p in detector.parameters() if p.requires_grad], lr=options.lr)
    history = []
    for step in range(options.steps):
        drawn = [draw(step * options.batch + i, options.size) for i in range(options.batch)]
        images = [image.to(device) for image, *_ in drawn]
        targets = [{"boxes": boxes.to(device), "labels": labels.to(device)} for _, boxes, labels, _ in drawn]
        losses = detector(images, targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
        parts = ", ".join(f"{name[5:]} {float(part.detach()):.3f}" for name, part in losses.items())
        print(f"step {step + 1}: loss {history[-1]:.3f} ({parts})", flush=True)

    image, _, labels, _ = draw(options.steps * options.batch, options.size)
    with torch.inference_mode():
        (found,) = detector.eval()([image.to(device)])
    best = [f"{CLASSES[int(c)]} {float(s):.2f}" for c, s in zip(found["labels"][:3], found["scores"][:3], strict=True)]
    print(
        f"a new image of {', '.join(CLASSES[int(c)] for c in labels)}: {len(found['boxes'])} boxes found; first: {', '.join(best) or 'none'}"
    )
    return history


if __name__ == "__main__":
    main()
