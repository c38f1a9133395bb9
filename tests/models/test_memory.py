import pytest
import torch
from torch import nn

from limbeck.models.memory import peak_memory


def test_the_peak_is_of_weights_and_of_what_is_alive_at_once():
    model = nn.Sequential(nn.Linear(10, 1000), nn.Linear(1000, 2000), nn.Linear(2000, 10), nn.Linear(10, 3000))
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    assert peak_memory(model, torch.randn(100, 10)) == pytest.approx(weights + 4 * 100 * 3000, rel=0.01)
    assert model.training
