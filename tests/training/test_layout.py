import pytest
import torch
from torch import nn

from limbeck.training.layout import lay_out

CPU = torch.device("cpu")


def is_channels_last(model):
    return model[0].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("stride", [2, (1, 2)])
def test_a_model_that_torch_cannot_train_in_channels_last_stays_as_it_is_and_trains(stride):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 5, 3), nn.Conv2d(5, 16, 1, stride))
    note = lay_out(model, CPU)
    assert "cannot train 2, a 1x1 convolution" in note
    assert not is_channels_last(model)
    for _ in range(4):  # in channels_last the process dies here
        model(torch.randn(32, 3, 20, 20)).square().sum().backward()


@pytest.mark.parametrize("last", [nn.Conv2d(8, 16, 1, 2), nn.Conv2d(8, 4, 3, 2), nn.Conv2d(8, 4, 1)])
def test_other_models_are_laid_out(last):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), last)
    assert lay_out(model, CPU) is None
    assert is_channels_last(model)
