import pytest
import torch
from torch import nn

from limbeck.core.modules import call, evaluating
from tests.networks import convnet, images


class Merging(nn.Linear):
    """A layer that merges what it has learnt when it is put into eval mode, as LoRA's do."""

    merged = False

    def train(self, mode=True):
        self.merged = not mode
        return super().train(mode)


def test_module_that_merges_in_eval_mode_is_unmerged_afterwards():
    model = nn.Sequential(Merging(2, 2), nn.Sequential(Merging(2, 2)))
    with evaluating(model):
        assert all(layer.merged for layer in (model[0], model[1][0]))
    assert not any(layer.merged for layer in (model[0], model[1][0]))


def test_every_module_has_its_own_mode_afterwards():
    model = nn.Sequential(convnet(4), nn.Sequential(Merging(2, 2), nn.Dropout()))
    model[0].eval()
    model[0].act.train()
    model[1][0].eval()
    modes = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes
    assert model[1][0].merged


@pytest.mark.parametrize("example", [images(), (images(),), {"input": images()}], ids=["tensor", "tuple", "dict"])
def test_model_is_called_by_a_tensor_by_position_or_by_name(example):
    model = convnet(4).eval()
    assert torch.equal(call(model, example), model(images()))
