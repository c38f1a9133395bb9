"""What the channels_last memory format saves: a plain training step in it, over one of the student as it comes.

python benchmarks/memory_format.py
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import torch
import tyro
from measure import circumstances, interleaved, ratio
from step import STUDENT, Pair, step

STUDENTS = (  # name, pixels, batch
    ("resnet18", 224, 8),
    ("resnet18", 32, 64),
    ("resnet50", 224, 8),
    ("mobilenetv2_100", 224, 8),
    ("efficientnet_lite0", 224, 8),
    ("regnety_004", 224, 8),
    ("convnext_atto", 224, 8),
    ("vit_tiny_patch16_224", 224, 8),
    ("torchvision:lraspp_mobilenet_v3_large", 512, 2),
    ("torchvision:deeplabv3_mobilenet_v3_large", 512, 2),
    ("torchvision:fcos/timm:resnet18", 320, 4),
    ("torchvision:retinanet/timm:resnet50", 640, 1),
    ("torchvision:fasterrcnn/timm:resnet50", 640, 1),
)


@dataclass(frozen=True)
class Options:
    """How long, and on how many threads."""

    rounds: int = 5
    threads: int = 2


def main(options: Options) -> None:
    torch.set_num_threads(options.threads)
    print(circumstances())
    print("| student, pixels, batch | as it comes | channels_last | ratio |\n|---|---|---|---|")
    for student, size, batch in STUDENTS:
        steps = {
            layout: step(Pair(student=student, size=size, batch=batch, channels_last=layout), STUDENT)
            for layout in ("none", "both")
        }
        times = interleaved(steps, options.rounds)
        shown = " | ".join(f"{1e3 * median(times[layout]):.1f} ms" for layout in steps)
        print(f"| {student}, {size}, {batch} | {shown} | {ratio(times, 'both', 'none'):.2f} |", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
