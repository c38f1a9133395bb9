import copy
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import (
    Distiller,
    Layer,
    Match,
    channels_first,
    conv1x1,
    conv1x1_if_needed,
    conv_bn,
    conv_bn_relu,
    conv_bn_relu_if_positive,
    first,
    orthogonal,
    pooled,
    tokens_to_map,
)
from limbeck.core.projectors import fit_grid
from tests.networks import TokenNet, compiled, convnet, images

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


@pytest.mark.parametrize("read", [None, tokens_to_map(1)], ids=["map", "tokens"])
def test_pooled_reads_the_mean_over_the_positions(read):
    output = feature if read is None else torch.cat([torch.full((2, 1, 3), 9.0), feature.flatten(2).mT], 1)
    torch.testing.assert_close(pooled(read)(output), feature.mean((2, 3), keepdim=True))
    assert Layer("norm", pooled(tokens_to_map(1))) == Layer("norm", pooled(tokens_to_map(1)))


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


# --- projectors ---

MAP, TOKENS, VECTOR = (4, 3, 5, 4), (4, 20, 3), (4, 3)
every_shape = pytest.mark.parametrize("shape", [MAP, TOKENS, VECTOR], ids=["map", "tokens", "vector"])


def example(shape, channels=7):
    """A student's feature of 3 channels, and a teacher's of others."""
    torch.manual_seed(0)
    wanted = list(shape)
    wanted[1 if len(shape) == 4 else -1] = channels
    return torch.randn(shape), torch.randn(wanted)


def last(feature):
    return feature.movedim(1, -1) if feature.ndim == 4 else feature


@pytest.mark.parametrize("make", [conv1x1, conv1x1_if_needed])
@every_shape
def test_conv1x1_is_one_linear_map_at_every_position(make, shape):
    student, teacher = example(shape)
    projector = make(student, teacher)
    expected = F.linear(last(student), projector.weight.view(7, 3), projector.bias)
    torch.testing.assert_close(last(projector(student)), expected)
    assert projector(student).shape == teacher.shape


@every_shape
def test_conv1x1_if_needed_is_nothing_where_channels_are_equal(shape):
    student, teacher = example(shape, channels=3)
    assert conv1x1_if_needed(student, teacher)(student) is student


@pytest.mark.parametrize(("make", "after"), [(conv_bn, lambda x: x), (conv_bn_relu, torch.relu)])
def test_conv_bn_standardises_a_linear_map_over_the_batch(make, after):
    student, teacher = example(MAP)
    projector = make(student, teacher)
    projected = projector[0](student)
    mean, variance = projected.mean((0, 2, 3), keepdim=True), projected.var((0, 2, 3), keepdim=True, unbiased=False)
    torch.testing.assert_close(projector(student), after((projected - mean) / (variance + 1e-5).sqrt()))
    assert projector(student).shape == teacher.shape
    assert projector[0].bias is None


@pytest.mark.parametrize(
    ("lowest", "layers"), [(0.0, [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]), (-0.1, [nn.Conv2d, nn.BatchNorm2d])]
)
def test_a_relu_follows_only_features_that_are_nowhere_below_zero(lowest, layers):
    student, teacher = example(MAP)
    projector = conv_bn_relu_if_positive(student, teacher.clamp(min=lowest))
    assert [type(layer) for layer in projector] == layers


@pytest.mark.parametrize("make", [conv_bn, conv_bn_relu])
@pytest.mark.parametrize("shape", [TOKENS, VECTOR], ids=["tokens", "vector"])
def test_conv_bn_refuses_what_is_no_map_with_the_remedy(make, shape):
    with pytest.raises(ValueError, match=r"take maps \(B, C, H, W\), not .* use conv1x1, or read tokens as a map"):
        make(*example(shape))


def is_orthonormal(projector):
    matrix = projector.linear.weight
    product = matrix @ matrix.mT if len(matrix) < matrix.shape[1] else matrix.mT @ matrix
    return torch.allclose(product, torch.eye(len(product)), atol=1e-5)


@pytest.mark.parametrize("channels", [2, 3, 7], ids=["fewer", "equal", "more"])
@every_shape
def test_orthogonal_is_a_linear_map_that_stays_orthonormal_as_it_learns(shape, channels):
    student, teacher = example(shape, channels)
    projector = orthogonal(student, teacher)
    assert projector(student).shape == teacher.shape
    before = projector.linear.weight.clone()
    optimizer = torch.optim.SGD(projector.parameters(), 0.5, momentum=0.9)
    losses = []
    for _ in range(5):
        loss = F.mse_loss(projector(student), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert is_orthonormal(projector)
    assert losses[-1] < losses[0]
    assert not torch.allclose(projector.linear.weight, before)
    torch.testing.assert_close(last(projector(student)), F.linear(last(student), projector.linear.weight))


def test_orthogonal_is_copied_and_restored():
    student, teacher = example(MAP)
    projector = orthogonal(student, teacher)
    clone, other = copy.deepcopy(projector), orthogonal(student, teacher)
    other.load_state_dict(projector.state_dict(), strict=True)
    expected = projector(student)
    for restored in (clone, other):
        torch.testing.assert_close(restored(student), expected)
        assert is_orthonormal(restored)
    with torch.no_grad():
        for parameter in clone.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert not torch.allclose(clone(student), expected)
    torch.testing.assert_close(projector(student), expected)


def distiller_of(make, net=convnet, path="body"):
    match = Match(path, path, nn.MSELoss(), projector=make)
    return Distiller(net(4), net(8, seed=1), [match], example=(images(),))


@pytest.mark.parametrize(
    ("make", "net", "path"),
    [
        (conv_bn, convnet, "body"),
        (conv_bn_relu, convnet, "body_act"),
        (conv1x1_if_needed, convnet, "body"),
        (orthogonal, convnet, "body"),
        (orthogonal, TokenNet, "block"),
        (orthogonal, convnet, "flatten"),
    ],
    ids=["conv_bn", "conv_bn_relu", "conv1x1_if_needed", "orthogonal maps", "orthogonal tokens", "orthogonal vectors"],
)
def test_projector_learns_in_a_distiller_and_comes_back_from_its_state(make, net, path):
    distiller = distiller_of(make, net, path)
    optimizer = torch.optim.SGD(distiller.matches.parameters(), 0.05)
    losses = []
    for _ in range(10):
        loss = distiller(images(8)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    distiller.eval()
    other = distiller_of(make, net, path).eval()
    other.load_state_dict(distiller.state_dict(), strict=True)
    for restored in (other, copy.deepcopy(distiller)):
        torch.testing.assert_close(restored(images()).loss, distiller(images()).loss)


def test_orthogonal_compiles_without_a_graph_break():
    distiller = distiller_of(orthogonal).eval()
    torch.testing.assert_close(compiled(distiller)(images()).loss, distiller(images()).loss, rtol=1e-4, atol=1e-5)


def test_example_leaves_no_trace_in_the_batch_norm_of_a_projector():
    projector = distiller_of(conv_bn).matches[0].projector
    assert projector[1].num_batches_tracked == 0
    assert not projector[1].running_mean.any()
    assert projector.training


@pytest.mark.parametrize("make", [conv1x1, conv1x1_if_needed, orthogonal])
@pytest.mark.parametrize(("depth", "mode"), [(2, "area"), (6, "trilinear")])
def test_volumes_are_mapped_over_their_channels_and_brought_to_the_teachers_depth_height_and_width(make, depth, mode):
    student, teacher = torch.randn(2, 4, 4, 6, 6), torch.randn(2, 8, depth, 3 * depth // 2, 3 * depth // 2)
    fitted = fit_grid(student, teacher)
    torch.testing.assert_close(fitted, F.interpolate(student, teacher.shape[2:], mode=mode))
    projector = make(fitted, teacher)
    projected = projector(fitted)
    assert projected.shape == teacher.shape
    torch.testing.assert_close(projector(fitted[:, :, :1, :1, :1]), projected[:, :, :1, :1, :1])
