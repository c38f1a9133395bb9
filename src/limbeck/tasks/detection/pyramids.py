"""Feature pyramids: what a detector's backbone gives its heads, by stride."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from limbeck.core.capture import Layer
from limbeck.core.modules import evaluating
from limbeck.core.projectors import channels_first

CHANNELS = 256  # of every level
MULTIPLE = 32  # of pixels, that batches are padded to
POOLED = "pool"  # torchvision's name of a level that only repeats positions of the one before


def padded_size(images: Sequence[Tensor]) -> tuple[int, int]:
    """Height and width, in pixels, of the batch that a detector makes of images (3, H, W), each with its own size."""
    height, width = (-(-max(image.shape[side] for image in images) // MULTIPLE) * MULTIPLE for side in (1, 2))
    return height, width


class Pyramid(nn.Module):
    """A backbone of timm under a feature pyramid: maps (B, 256, H, W) by level, from the finest on.

    The one map of a plain transformer is brought to the strides first, as ViTDet does (arXiv 2203.16527).

    Args:
        name: As timm has it.
        strides: Of the maps that the pyramid takes, in pixels.
        above: Makes what adds levels above them.
    """

    out_channels = CHANNELS

    def __init__(self, name: str, strides: Sequence[int], above: Callable[[], nn.Module]):
        super().__init__()
        import timm

        info = timm.create_model(name, features_only=True).feature_info
        index = dict(zip(info.reduction(), info.out_indices, strict=True))  # of a map, by its stride
        finest = min(index)
        if len(index) == 1 and log2(finest).is_integer():
            self.body = body_of(name, [-1])
            channels = self.body.feature_info.channels() * len(strides)
            self.resample = nn.ModuleList(resampling(channels[0], finest, stride) for stride in strides)
        elif missing := sorted(set(strides) - index.keys()):
            strides_of_maps = info.reduction()
            raise ValueError(
                f"timm:{name} has features at the strides {strides_of_maps}; a pyramid needs {missing}, too"
            )
        else:
            self.body = body_of(name, [index[stride] for stride in strides])
            channels = self.body.feature_info.channels()
            self.resample = nn.ModuleList(nn.Identity() for _ in strides)
        self.channels_are_last = getattr(self.body, "output_fmt", "NCHW") == "NHWC"
        self.fpn = FeaturePyramidNetwork(channels, CHANNELS, above())
        self.frozen_norms = False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.body(images)
        maps = [channels_first(each) for each in maps] if self.channels_are_last else maps
        maps = maps * len(self.resample) if len(maps) == 1 else maps
        resampled = {str(index): self.resample[index](each) for index, each in enumerate(maps)}
        levels: dict[str, Tensor] = self.fpn(resampled)
        return levels

    def freeze_norms(self) -> None:
        """Keep the backbone's batch norms as they are: a detector's batches are small, ImageNet's statistics good."""
        self.frozen_norms = True
        for norm in self._norms():
            norm.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Pyramid:
        super().train(mode)
        if self.frozen_norms:
            for norm in self._norms():
                norm.eval()
        return self

    def _norms(self) -> list[nn.Module]:
        return [module for module in self.body.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def body_of(name: str, indices: Sequence[int]) -> Any:
    """A backbone of timm that gives the maps of these indices, and takes images of any size where it can."""
    import timm

    for option in ({"dynamic_img_size": True}, {"strict_img_size": False}):
        try:
            return timm.create_model(name, features_only=True, out_indices=indices, **option)
        except TypeError:  # it has no such option, and takes any size, or one alone
            continue
    return timm.create_model(name, features_only=True, out_indices=indices)


def resampling(channels: int, stride: int, wanted: int) -> nn.Module:
    """From a map's stride to another: by transposed convolutions that double, or the largest of each four positions."""
    halvings = round(log2(wanted / stride))
    if halvings > 0:
        return nn.Sequential(*(nn.MaxPool2d(2) for _ in range(halvings)))
    return nn.Sequential(*(nn.ConvTranspose2d(channels, channels, 2, 2) for _ in range(-halvings)))


@dataclass(frozen=True)
class level:  # noqa: N801 - it is used as a function: Layer("backbone", read=level("0"))
    """Read the map of a pyramid that has this name there."""

    name: str

    def __call__(self, output: dict[str, Tensor]) -> Tensor:
        return output[self.name]


@torch.no_grad()
def levels_of_backbone(model: nn.Module, size: int = 256) -> dict[int, Layer]:
    """The maps by stride, in pixels, that a detector's ``backbone`` gives; none where it gives no dict of maps."""
    backbone = dict(model.named_children()).get("backbone")
    if backbone is None:
        return {}
    example = next(model.parameters()).new_zeros(1, 3, size, size)
    with evaluating(backbone):
        maps = backbone(example)
    if not isinstance(maps, dict):
        return {}
    strides = {name: size // each.shape[-1] for name, each in maps.items() if name != POOLED}
    return {stride: Layer("backbone", level(name), label=f"/{stride}") for name, stride in strides.items()}
