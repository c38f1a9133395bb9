"""Which blocks of a network are those of a plain transformer."""

import pytest
import timm
import torch
import torchvision

from limbeck.data.inputs import Inputs
from limbeck.models.model import Model


def paths(module, size=64):
    return [found.path for found in Model(module, Inputs(size), ["a", "b"]).blocks]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("test_vit", {}),
        ("deit_tiny_distilled_patch16_224", {"depth": 3, "img_size": 64}),
        ("resmlp_12_224", {"img_size": 64}),
        ("vit_small_patch16_dinov3", {"depth": 3, "img_size": 64}),
    ],
)
def test_the_blocks_of_timms_plain_transformers_are_found(name, options):
    module = timm.create_model(name, num_classes=2, **options)
    assert paths(module) == [f"blocks.{index}" for index in range(len(module.blocks))]


def test_the_blocks_of_torchvisions_transformer_are_the_outer_ones():
    module = torchvision.models.VisionTransformer(64, 16, 3, 4, 16, 32, num_classes=2)
    assert paths(module) == [f"encoder.layers.encoder_layer_{index}" for index in range(3)]


@pytest.mark.parametrize("name", ["test_resnet", "swin_tiny_patch4_window7_224"])
def test_a_network_of_several_sizes_has_none(name):
    options = {"img_size": 64, "depths": (1, 1, 1, 1), "window_size": 2} if "swin" in name else {}
    assert paths(timm.create_model(name, num_classes=2, **options)) == []


def test_a_block_is_read_as_a_map_of_its_patches():
    block = Model(timm.create_model("vit_small_patch16_dinov3", depth=2, img_size=64), Inputs(64), ["a"]).blocks[0]
    assert block.layer.read(torch.randn(1, 21, 384)).shape == (1, 384, 4, 4)
