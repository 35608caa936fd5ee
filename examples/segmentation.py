"""An exported placement as the encoder of a U-Net of segmentation_models_pytorch, trained on drawn shapes.

nasattn export STUDY --best --out model
python examples/segmentation.py --model model --steps 200
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from shapes import CLASSES, draw
from timm.layers import freeze_batch_norm_2d

import nasattn  # noqa: F401  (timm then knows the hosts)


def build_segmenter(folder: str, frozen_bn: bool = False) -> Any:
    """A U-Net whose encoder is the exported model in *folder*: ``(B, 3, H, W) -> (B, classes, H, W)``, H and W multiples of 32."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise SystemExit("this example needs segmentation_models_pytorch: pip install segmentation-models-pytorch") from None
    logging.getLogger("timm").setLevel(logging.ERROR)  # the encoder has no use for the classifier's weights
    segmenter = smp.Unet(f"tu-local-dir:{Path(folder).resolve()}", encoder_weights=True, classes=len(CLASSES))
    if frozen_bn:
        segmenter.encoder = freeze_batch_norm_2d(segmenter.encoder)
    return segmenter


def main(arguments: list[str] | None = None) -> list[float]:
    """Train and print. Returns the loss of each step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="DIR", help="folder that `nasattn export` wrote")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels, a multiple of 32")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--frozen-bn", action="store_true", help="keep the encoder's BatchNorm statistics: for weights that are trained")
    options = parser.parse_args(arguments)
    if options.size % 32:
        parser.error(f"--size must be a multiple of 32, got {options.size}")

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter = build_segmenter(options.model, options.frozen_bn).to(device).train()
    optimizer = torch.optim.AdamW([p for p in segmenter.parameters() if p.requires_grad], lr=options.lr)
    history = []
    for step in range(options.steps):
        drawn = [draw(step * options.batch + i, options.size) for i in range(options.batch)]
        images, masks = torch.stack([d[0] for d in drawn]).to(device), torch.stack([d[3] for d in drawn]).to(device)
        logits = segmenter(images)
        loss = F.cross_entropy(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
        print(
            f"step {step + 1}: loss {history[-1]:.3f}, {float((logits.argmax(1) == masks).float().mean()):.1%} of the pixels right",
            flush=True,
        )
    return history


if __name__ == "__main__":
    main()
