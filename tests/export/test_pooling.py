import pytest
import torch
from torch import nn

from limbeck.export.pooling import AdaptivePool, with_any_pooling


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (6, 6)])
@pytest.mark.parametrize("of", [(6, 6), (7, 13), (5, 4)])
def test_pooling_by_products_is_adaptive_pooling(size, of):
    maps = torch.rand(2, 3, *of)
    torch.testing.assert_close(AdaptivePool(size)(maps), nn.AdaptiveAvgPool2d(size)(maps))


def test_a_network_with_adaptive_pooling_is_copied_and_one_without_is_not():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.AdaptiveAvgPool2d((2, 1)))
    copied = with_any_pooling(pooled)
    assert [type(module) for module in pooled] == [nn.AdaptiveAvgPool2d] * 2
    assert [module.size for module in copied] == [(3, 3), (2, 1)]
    plain = nn.Sequential(nn.AdaptiveAvgPool2d(1))
    assert with_any_pooling(plain) is plain
