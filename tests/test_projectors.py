from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F

from limbeck import Layer, channels_first, conv1x1, first, tokens_to_map
from limbeck.projectors import fit_grid

feature = torch.arange(2 * 3 * 4 * 4.0).view(2, 3, 4, 4)


@pytest.mark.parametrize("output", [(feature, 1), [feature, None], OrderedDict(last=feature, other=0)])
def test_first_reads_the_first_of_several_outputs(output):
    assert first(output) is feature


@pytest.mark.parametrize(("prefix", "height", "width"), [(0, 4, 4), (1, 4, 4), (5, 3, 3), (1, 2, 8)])
@pytest.mark.parametrize("wrap", [lambda tokens: tokens, lambda tokens: (tokens, None)], ids=["tensor", "tuple"])
def test_tokens_become_the_map_that_they_were(prefix, height, width, wrap):
    expected = torch.randn(2, 6, height, width)
    tokens = torch.cat([torch.full((2, prefix, 6), 9.0), expected.flatten(2).transpose(1, 2)], 1)
    grid = None if height == width else (height, width)
    assert torch.equal(tokens_to_map(prefix, grid)(wrap(tokens)), expected)


@pytest.mark.parametrize("read", [tokens_to_map(), tokens_to_map(1, (4, 5)), tokens_to_map(2)])
def test_tokens_that_fill_no_grid_raise_and_name_the_remedy(read):
    with pytest.raises(ValueError, match=r"do not fill a \dx\d grid; pass tokens_to_map\(prefix=..., grid="):
        read(torch.zeros(2, 17, 6))


def test_equal_reads_make_equal_layers():
    assert Layer("norm", tokens_to_map(1)) == Layer("norm", tokens_to_map(prefix=1))
    assert len({Layer("norm", tokens_to_map(1)), Layer("norm", tokens_to_map(1)), Layer("norm", tokens_to_map(2))}) == 2


def test_channels_first_undoes_channels_last():
    assert torch.equal(channels_first(feature.permute(0, 2, 3, 1)), feature)


@pytest.mark.parametrize(
    ("student", "teacher"),
    [((2, 3, 4, 4), (2, 7, 4, 4)), ((2, 16, 3), (2, 9, 3)), ((2, 3), (2, 5)), ((2, 3, 4, 4), (2, 16, 3))],
)
def test_grid_is_left_alone_where_it_fits_or_there_is_none(student, teacher):
    student = torch.randn(student)
    assert fit_grid(student, torch.randn(teacher)) is student


def test_grid_that_shrinks_takes_the_mean_over_area():
    expected = feature.view(2, 3, 2, 2, 2, 2).mean((3, 5))
    torch.testing.assert_close(fit_grid(feature, torch.zeros(2, 8, 2, 2)), expected)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (8, 2), (4, 9)])
def test_grid_that_grows_is_bilinear(size):
    fitted = fit_grid(feature, torch.zeros(2, 8, *size))
    torch.testing.assert_close(fitted, F.interpolate(feature, size, mode="bilinear", align_corners=False))
    assert fitted.shape == (2, 3, *size)


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 20, 3), (2, 3)], ids=["map", "tokens", "vector"])
def test_conv1x1_is_one_linear_map_at_every_position(shape):
    student = torch.randn(shape)
    channel = 1 if len(shape) == 4 else -1
    wanted = list(shape)
    wanted[channel] = 7
    projector = conv1x1(student, torch.zeros(wanted))
    expected = F.linear(student.movedim(channel, -1), projector.weight.view(7, 3), projector.bias).movedim(-1, channel)
    torch.testing.assert_close(projector(student), expected)
    assert expected.shape == torch.Size(wanted)
