import copy
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

from limbeck.core.capture import Layer
from limbeck.core.modules import evaluating
from limbeck.tasks.detection.pyramids import CHANNELS, Pyramid, level, levels_of_backbone, resampling
from tests.networks import randomize_norms

ABOVE = partial(LastLevelP6P7, CHANNELS, CHANNELS)
TINY = "test_efficientnet"  # of timm


def shapes(levels):
    return {name: tuple(each.shape) for name, each in levels.items()}


def norms(module):
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d)]


def trained_a_step(pyramid):
    torch.manual_seed(0)
    optimizer = torch.optim.SGD([each for each in pyramid.parameters() if each.requires_grad], 0.1)
    levels = pyramid(torch.rand(2, 3, 64, 64))
    sum(each.square().mean() for each in levels.values()).backward()
    optimizer.step()


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
@pytest.mark.parametrize(
    "backbone",
    [
        "test_resnet",
        "mobilenetv3_small_050",
        "test_convnext",
        "test_mambaout",
        "swin_tiny_patch4_window7_224",
        "dla34",  # timm counts its stages from 1
        "test_vit",
        "vit_tiny_patch16_224",
    ],
)
def test_levels_have_the_strides_that_were_asked_for(backbone, size):
    images = torch.rand(2, 3, *size)
    height, width = size
    with torch.no_grad():
        two = Pyramid(backbone, (4, 8, 16, 32), LastLevelMaxPool).eval()(images)
        one = Pyramid(backbone, (8, 16, 32), ABOVE).eval()(images)
    strides = {"0": 4, "1": 8, "2": 16, "3": 32, "pool": 64}
    assert shapes(two) == {name: (2, 256, -(-height // each), -(-width // each)) for name, each in strides.items()}
    strides = {"0": 8, "1": 16, "2": 32, "p6": 64, "p7": 128}
    assert shapes(one) == {name: (2, 256, -(-height // each), -(-width // each)) for name, each in strides.items()}
    assert torch.equal(two["pool"], two["3"][:, :, ::2, ::2])


def test_only_the_maps_that_are_taken_are_made():
    assert Pyramid("test_resnet", (8, 16, 32), ABOVE).body.feature_info.reduction() == [8, 16, 32]
    assert Pyramid("test_vit", (8, 16, 32), ABOVE).body.feature_info.reduction() == [16]


def test_the_map_of_a_plain_transformer_is_read_at_its_end_and_brought_to_every_stride():
    pyramid = Pyramid("test_vit", (4, 8, 16, 32), LastLevelMaxPool).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        (last,) = pyramid.body(images)
        expected = pyramid.body.model.forward_intermediates(images, norm=False, intermediates_only=True)[-1]
        levels = pyramid(images)
        resampled = {str(index): resample(last) for index, resample in enumerate(pyramid.resample)}
        again = pyramid.fpn(resampled)
    assert torch.equal(last, expected)
    assert shapes(resampled) == {
        name: (1, 64, 64 // stride, 96 // stride) for name, stride in zip("0123", (4, 8, 16, 32), strict=True)
    }
    assert all(torch.equal(levels[name], again[name]) for name in levels)


def test_maps_are_resampled_by_doubling_or_by_the_largest_of_four():
    image = torch.rand(1, 5, 6, 10)
    assert torch.equal(resampling(5, 16, 16)(image), image)
    halved = resampling(5, 16, 32)
    assert not list(halved.parameters())
    assert torch.equal(halved(image), image.unfold(2, 2, 2).unfold(3, 2, 2).amax((-2, -1)))
    assert resampling(5, 8, 32)(torch.rand(1, 5, 8, 8)).shape == (1, 5, 2, 2)
    quadrupled = resampling(5, 16, 4)
    assert quadrupled(image).shape == (1, 5, 24, 40)
    assert [each.weight.shape for each in quadrupled] == [(5, 5, 2, 2)] * 2
    one = torch.zeros_like(image)
    one[:, :, 2, 3] = 1
    changed = (quadrupled(one) - quadrupled(torch.zeros_like(image))).abs().sum((0, 1)) > 0
    assert changed[8:12, 12:16].all()
    assert changed.sum() == 16, "each position has its own sixteen"


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (
            "test_convnext",
            r"timm:test_convnext has features at the strides \[4, 8, 16, 32\]; a pyramid needs \[2\], too",
        ),
        ("vit_small_patch14_dinov2", r"at the strides \[14, 14, 14\]; a pyramid needs \[2, 8, 16\], too"),
    ],
)
def test_a_backbone_without_the_strides_is_refused(backbone, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        Pyramid(backbone, (2, 8, 16), ABOVE)


@pytest.mark.parametrize("backbone", ["test_mambaout", "swin_tiny_patch4_window7_224"])
def test_maps_whose_channels_come_last_reach_the_pyramid_with_the_channels_first(backbone):
    pyramid = Pyramid(backbone, (8, 16, 32), ABOVE).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        maps = pyramid.body(images)
        levels = pyramid(images)
        again = pyramid.fpn({str(index): each.movedim(3, 1) for index, each in enumerate(maps)})
    assert [each.shape[1:3] for each in maps] == [(8, 12), (4, 6), (2, 3)]
    assert all(torch.equal(levels[name], again[name]) for name in levels)


def test_a_level_is_read_by_its_name_and_called_by_its_stride():
    backbone = nn.Module()
    backbone.forward = lambda images: {"0": images[..., ::4, ::4], "p6": images[..., ::64, ::64]}
    detector = nn.Sequential()
    detector.add_module("backbone", backbone)
    detector.weight = nn.Parameter(torch.zeros(1))
    levels = levels_of_backbone(detector)
    assert levels == {4: Layer("backbone", level("0")), 64: Layer("backbone", level("p6"))}
    assert [str(layer) for layer in levels.values()] == ["backbone/4", "backbone/64"]
    maps = {"0": torch.zeros(1), "p6": torch.ones(1)}
    assert levels[64].read(maps) is maps["p6"]


def test_frozen_norms_stay_while_everything_else_is_trained():
    pyramid = Pyramid(TINY, (8, 16, 32), ABOVE)
    randomize_norms(pyramid).train()
    pyramid.freeze_norms()
    frozen = {id(value) for norm in norms(pyramid.body) for value in norm.state_dict(keep_vars=True).values()}
    before = {name: (id(value), value.detach().clone()) for name, value in pyramid.state_dict(keep_vars=True).items()}
    trained_a_step(pyramid)
    pyramid.eval()
    pyramid.train()
    trained_a_step(pyramid)
    changed = {name for name, value in pyramid.state_dict().items() if not torch.equal(value, before[name][1])}
    assert len(frozen) == 5 * 12, "weight, bias, mean, variance and count of each"
    assert changed == {name for name, (identity, _) in before.items() if identity not in frozen}


def test_norms_that_are_not_frozen_learn():
    pyramid = Pyramid(TINY, (8, 16, 32), ABOVE)
    before = copy.deepcopy(pyramid.state_dict())
    trained_a_step(pyramid.train())
    still = [name for name, value in pyramid.state_dict().items() if torch.equal(value, before[name])]
    assert not still


def test_frozen_norms_are_in_eval_mode_whatever_mode_the_rest_is_in():
    pyramid = Pyramid(TINY, (8, 16, 32), ABOVE)
    assert pyramid.train().freeze_norms() is None
    around = nn.Sequential(pyramid)
    for mode in (True, False, True):
        around.train(mode)
        assert pyramid.training is pyramid.body.training is pyramid.fpn.training is mode
        assert not any(norm.training for norm in norms(pyramid.body))
    with evaluating(around):
        assert not pyramid.training
    assert pyramid.training
    assert not any(norm.training for norm in norms(pyramid.body))
    again = copy.deepcopy(around).train()
    assert not any(norm.training for norm in norms(again))


def test_norms_can_be_frozen_in_eval_mode_and_give_what_they_gave():
    pyramid = randomize_norms(Pyramid(TINY, (8, 16, 32), ABOVE))
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = pyramid(images)
        pyramid.freeze_norms()
        assert not pyramid.training
        pyramid.train()
        pyramid.body.requires_grad_(True)
        found = pyramid(images)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
