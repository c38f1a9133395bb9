import copy

import pytest
import timm.layers
import torch
import torchvision.ops
from torch import nn
from transformers.models.detr.modeling_detr import DetrFrozenBatchNorm2d

from limbeck.teacher.fold import fold_norms
from tests.networks import Block, randomize_norms

GRID = {1: (9,), 2: (9, 8), 3: (5, 4, 3)}
FOLDED = {
    "Conv1d": (1, lambda: [nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)]),
    "Conv2d": (2, lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)]),
    "Conv3d": (3, lambda: [nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)]),
    "no bias": (2, lambda: [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)]),
    "no affine map": (2, lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)]),
    "grouped": (2, lambda: [nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6)]),
    "strided and padded": (2, lambda: [nn.Conv2d(3, 4, 3, 2, 1, padding_mode="reflect"), nn.BatchNorm2d(4, eps=0.1)]),
    "norm with activation": (2, lambda: [nn.Conv2d(3, 4, 3), timm.layers.BatchNormAct2d(4)]),
    "frozen norm": (2, lambda: [nn.Conv2d(3, 4, 3), torchvision.ops.FrozenBatchNorm2d(4)]),
    "frozen norm of transformers": (2, lambda: [nn.Conv2d(3, 4, 3, bias=False), DetrFrozenBatchNorm2d(4)]),
    "nested": (2, lambda: [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.ReLU()]),
}
LEFT = {
    "activation between": lambda: [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)],
    "norm before": lambda: [nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)],
    "no running statistics": lambda: [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)],
    "group norm": lambda: [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)],
    "transposed convolution": lambda: [nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)],
    "output of a block": lambda: [nn.Sequential(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)],
}


def norms(model):
    return sum(getattr(module, "running_var", None) is not None for module in model.modules())


@pytest.mark.parametrize(("dimensions", "make"), FOLDED.values(), ids=FOLDED)
def test_folded_model_has_no_norm_and_gives_the_same(dimensions, make):
    model = randomize_norms(nn.Sequential(*make()).double())
    x = torch.randn(2, 3, *GRID[dimensions], dtype=torch.float64)
    expected = model(x)
    assert len(fold_norms(model, (x,))) == 1
    assert norms(model) == 0
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("make", LEFT.values(), ids=LEFT)
def test_what_cannot_be_folded_is_left_as_it_is(make):
    model = randomize_norms(nn.Sequential(*make()))
    before, x = copy.deepcopy(model.state_dict()), torch.randn(2, 3, 9, 8)
    assert len(fold_norms(model, (x,))) == 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def convolution_twice(block, x):
    return block.norm(block.a(block.a(x)))


def norm_twice(block, x):
    return block.norm(block.norm(block.a(x)))


def two_modules_after_one(block, x):
    y = block.a(x)
    return block.norm(y) + block.b(y)


@pytest.mark.parametrize("steps", [convolution_twice, norm_twice, two_modules_after_one])
def test_modules_used_more_than_once_are_not_folded(steps):
    model = Block(steps)
    model.norm = nn.BatchNorm2d(3)
    randomize_norms(model)
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    assert len(fold_norms(model, (x,))) == 0
    assert torch.equal(model(x), expected)


def test_pairs_are_seen_in_the_forward_and_not_in_the_order_of_registration():
    model = Block(lambda block, x: block.norm(input=block.a(x)) + block.b(x))
    model.norm = nn.BatchNorm2d(3)
    randomize_norms(model.double())
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    expected = model(x)
    weight = model.b.weight.clone()
    assert len(fold_norms(model, {"x": x})) == 1
    torch.testing.assert_close(model(x), expected)
    assert torch.equal(model.b.weight, weight)
