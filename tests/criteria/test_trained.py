"""Laws of the criteria with weights of their own: MGD, FGD, FKD and ReviewKD."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.criteria import FGD, FKD, MGD, ReviewKD
from limbeck.criteria import fkd as fkd_module
from limbeck.criteria.fgd import cells_of
from limbeck.criteria.review_kd import hierarchical_distance


def maps(student, teacher=None, dtype=torch.float32):
    torch.manual_seed(0)
    return torch.randn(student, dtype=dtype, requires_grad=True), torch.randn(teacher or student, dtype=dtype)


def built(criterion, student, teacher):
    criterion.build(student, teacher)
    return criterion.to(student.dtype if isinstance(student, torch.Tensor) else student[0].dtype)


# --- MGD ---


def kept(over, masked=0.3, training=True):
    """What of a map of ones an MGD lets through to its generator, and the gradient of its value by the map."""
    student, teacher = torch.ones(4, 50, 20, 20, requires_grad=True), torch.zeros(4, 50, 20, 20)
    criterion = built(MGD(masked, over), student, teacher).train(training)
    criterion.generator = nn.Identity()
    value = criterion(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(value, 50 * 400 * (gradient != 0).float().mean())
    return gradient != 0


@pytest.mark.parametrize(("over", "alike"), [("channels", (2, 3)), ("positions", (1,))])
def test_mgd_masks_the_stated_share_of_channels_or_of_positions(over, alike):
    torch.manual_seed(0)
    passed = kept(over)
    share = 1 - passed.float().mean()
    assert share.item() == pytest.approx(0.3, abs=0.05)
    assert torch.equal(passed, passed.amax(alike, keepdim=True).expand_as(passed))  # a channel, or position, as a whole
    assert not torch.equal(passed[0], passed[1])
    assert not torch.equal(passed, kept(over))  # drawn anew


def test_mgd_masks_nothing_in_eval_mode_or_with_a_share_of_zero():
    assert kept("channels", training=False).all()
    assert kept("positions", masked=0.0).all()


def test_mgd_compares_masked_positions_too():
    student, teacher = maps((2, 4, 5, 5))
    criterion = built(MGD(0.999999, "positions"), student, teacher)
    nothing = criterion.generator(torch.zeros_like(student))
    torch.testing.assert_close(criterion(student, teacher), (nothing - teacher).square().sum() / 2)


@pytest.mark.parametrize("masked", [-0.1, 1, 1.5])
def test_share_that_leaves_nothing_is_refused(masked):
    with pytest.raises(ValueError, match="it is a share from 0 up to, but not, 1"):
        MGD(masked)


def test_what_is_masked_is_refused_by_another_name():
    with pytest.raises(ValueError, match="over is 'pixels'; it is 'channels' or 'positions'"):
        MGD(over="pixels")


# --- FGD ---

SMALL, LARGE = torch.tensor([[0.5, 0.5, 0.6, 0.6]]), torch.tensor([[0.0, 0.0, 0.6, 0.6]])
NONE = torch.zeros(0, 4)


def test_cells_of_a_box_reach_from_the_floor_to_the_ceiling_and_share_one():
    cells = cells_of(torch.tensor([[0.3, 0.05, 0.7, 0.2]]), 4, 4)
    expected = torch.zeros(4, 4)
    expected[0:2, 1:4] = 1 / 6
    torch.testing.assert_close(cells, expected)


def test_cells_of_a_larger_box_count_less_and_of_two_boxes_the_larger_counts():
    small, large = cells_of(SMALL, 10, 10), cells_of(LARGE, 10, 10)
    assert 0 < large.max() < small.max()
    torch.testing.assert_close(cells_of(torch.cat([SMALL, LARGE]), 10, 10), torch.maximum(small, large))
    torch.testing.assert_close(cells_of(torch.cat([LARGE, SMALL]), 10, 10), torch.maximum(small, large))


def test_boxes_on_a_map_that_is_not_square_scale_with_each_side():
    inside = cells_of(torch.tensor([[0.5, 0.0, 0.74, 0.1]]), 10, 4) > 0
    assert inside.nonzero().tolist() == [[row, column] for row in (0, 1) for column in (2, 3)]


def focal(foreground, background, boxes, student, teacher):
    return built(FGD(foreground, background, 0, 0), student, teacher)(student, teacher, boxes)


def test_image_without_a_box_is_all_background():
    student, teacher = maps((2, 4, 5, 5))
    assert focal(1, 0, [NONE, NONE], student, teacher) == 0
    assert focal(0, 1, [NONE, NONE], student, teacher) > 0
    one, two = (focal(1, 0, boxes, student, teacher) for boxes in ([SMALL, NONE], [NONE, SMALL]))
    torch.testing.assert_close(one + two, focal(1, 0, [SMALL, SMALL], student, teacher))


def test_image_that_a_box_fills_has_no_background():
    student, teacher = maps((1, 4, 5, 5))
    assert focal(0, 1, [torch.tensor([[0.0, 0, 1, 1]])], student, teacher) == 0
    assert focal(1, 0, [torch.tensor([[0.0, 0, 1, 1]])], student, teacher) > 0


def test_gradient_of_the_focal_part_lies_inside_the_box_or_outside_it():
    student, teacher = maps((1, 4, 10, 10))
    inside = cells_of(SMALL, 10, 10) > 0
    for weights, where in (((1, 0), inside), ((0, 1), ~inside)):
        (gradient,) = torch.autograd.grad(focal(*weights, [SMALL], student, teacher), student)
        assert torch.equal(gradient.abs().sum((0, 1)) > 0, where)


def test_relation_adds_nothing_at_first_and_its_blocks_learn():
    student, teacher = maps((2, 4, 5, 5))
    criterion = built(FGD(0, 0, 0, 1), student, teacher)
    value = criterion(student, teacher, [NONE, NONE])
    torch.testing.assert_close(value, (student - teacher).square().sum() / 2)
    optimizer = torch.optim.SGD(criterion.parameters(), 1e-3)
    for _ in range(2):  # in the first step only the last layers have a gradient
        optimizer.zero_grad()
        criterion(student, teacher, [NONE, NONE]).backward()
        optimizer.step()
    assert all(weight.grad.any() for weight in criterion.parameters() if weight.shape != (1,))  # the softmax's constant
    assert criterion(student, teacher, [NONE, NONE]) < value


@pytest.mark.parametrize(
    ("truth", "given"),
    [(None, "NoneType"), ([NONE], "list"), (torch.zeros(2, 3, 4), "Tensor"), ([NONE, torch.zeros(3, 5)], "list")],
    ids=["none", "of one image", "one tensor", "with classes"],
)
def test_truth_that_is_not_boxes_for_each_image_is_refused(truth, given):
    student, teacher = maps((2, 4, 5, 5))
    with pytest.raises(
        ValueError, match=rf"boxes of each of the 2 images .* \(n, 4\), .* not a {given}; without boxes"
    ):
        built(FGD(), student, teacher)(student, teacher, truth)


# --- FKD ---


def test_fkd_takes_other_channels():
    student, teacher = maps((2, 4, 5, 3), (2, 6, 5, 3))
    criterion = built(FKD(1, 1, 1), student, teacher)
    optimizer = torch.optim.SGD(criterion.parameters(), 1e-2)
    for _ in range(2):  # in the first step nothing of the non-local blocks but their norms has a gradient
        optimizer.zero_grad()
        criterion(student, teacher).backward()
        optimizer.step()
    assert student.grad.any()
    assert all(weight.grad.any() for weight in criterion.parameters())


def test_fkd_terms_are_norms_of_the_whole_batch():
    student, teacher = maps((2, 4, 5, 3), dtype=torch.float64)
    parts = [built(FKD(*weights), student, teacher) for weights in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    for criterion in parts:
        for parameter in criterion.parameters():
            nn.init.zeros_(parameter)  # so that nothing of the student is left
    feature, attention, relation = (criterion(student, teacher) for criterion in parts)
    means = teacher.mean((2, 3)).norm() + teacher.mean(1).norm()
    torch.testing.assert_close(attention, means)
    torch.testing.assert_close(relation, teacher.norm())
    attended = [15 * (x.abs().mean(1).flatten(1) / 0.5).softmax(1).view(2, 1, 5, 3) for x in (student, teacher)]
    torch.testing.assert_close(feature, (sum(attended) / 2 * teacher.square()).sum().sqrt())


def test_non_local_block_adds_to_each_position_the_normalised_mean_of_pooled_values_by_their_products():
    x = maps((2, 6, 9, 5))[0]
    block = fkd_module.NonLocal(6, reduction=2, pool=2)
    nn.init.normal_(block.norm.weight)
    query, key, value = (layer(x) for layer in (block.query, block.key, block.value))
    key, value = (F.max_pool2d(F.max_pool2d(y, 2), 2) for y in (key, value))
    assert key.shape[2:] == (2, 1)
    related = torch.einsum("bcp,bck,bdk->bdp", *(y.flatten(2) for y in (query, key, value))) / 2
    torch.testing.assert_close(block(x), x + block.norm(block.output(related.view(2, 3, 9, 5))))


def test_non_local_block_adds_nothing_at_first_and_takes_maps_smaller_than_its_stride():
    x = maps((2, 6, 3, 1))[0]
    assert torch.equal(fkd_module.NonLocal(6, reduction=2, pool=8)(x), x)


def test_gradient_of_fkd_is_that_of_its_value_under_the_mask_as_it_is(monkeypatch):
    student, teacher = maps((2, 4, 3, 3), (2, 6, 3, 3), dtype=torch.float64)
    criterion = built(FKD(0.5, 1, 0.5), student, teacher)
    expected = torch.autograd.grad(criterion(student, teacher), student)
    masks = iter([fkd_module.over_positions(feature.detach(), 0.5) for feature in (student, teacher)] * 1000)
    monkeypatch.setattr(fkd_module, "over_positions", lambda *_: next(masks))
    torch.testing.assert_close(torch.autograd.grad(criterion(student, teacher), student), expected)
    assert torch.autograd.gradcheck(lambda student: criterion(student, teacher), (student,), fast_mode=True)


# --- ReviewKD ---


def levels(channels, sizes, dtype=torch.float64):
    torch.manual_seed(0)
    return tuple(torch.randn(3, c, s, s, dtype=dtype) for c, s in zip(channels, sizes, strict=True))


def review(criterion, student, teacher):
    """The formula as it is written, from the deepest layer to the first."""
    total, residual = 0.0, None
    for fusion, here, there in list(zip(criterion.fusions, student, teacher, strict=True))[::-1]:
        x = fusion.take(here)
        if residual is not None:
            residual = nn.Upsample(x.shape[2:])(residual)
            weights = torch.sigmoid(fusion.attend(torch.cat([x, residual], 1)))
            x = x * weights[:, :1] + residual * weights[:, 1:]
        residual = nn.Upsample(there.shape[2:])(x) if x.shape != there.shape else x
        total = total + hierarchical_distance(fusion.give(residual), there)
    return total


@pytest.mark.parametrize("sizes", [(8, 4, 1), (4, 4, 1), (16, 8, 2)], ids=["same", "one is larger", "all are larger"])
def test_review_kd_is_its_formula_for_other_channels_and_other_sizes(sizes):
    student, teacher = levels((3, 5, 6), sizes), levels((4, 7, 9), (8, 4, 1))
    criterion = built(ReviewKD(), student, teacher)
    torch.testing.assert_close(criterion(student, teacher), review(criterion, student, teacher))


def test_gradient_of_review_kd_reaches_every_layer_and_every_weight():
    student, teacher = levels((3, 5, 6), (8, 4, 1)), levels((4, 7, 9), (8, 4, 1))
    for feature in (*student, *teacher):
        feature.requires_grad_()
    criterion = built(ReviewKD(), student, teacher)
    criterion(student, teacher).backward()
    assert all(tensor.grad.any() for tensor in (*student, *criterion.parameters()))
    assert all(feature.grad is None for feature in teacher)


def test_shallow_layers_of_the_teacher_teach_the_deep_ones_of_the_student():
    student, teacher = levels((3, 5), (8, 4)), levels((4, 7), (8, 4))
    student[1].requires_grad_()
    criterion = built(ReviewKD(), student, teacher)
    gradients = [
        torch.autograd.grad(criterion(student, (first, teacher[1])), student[1])[0]
        for first in (teacher[0], teacher[0].flip(0))
    ]
    assert not torch.allclose(*gradients)


def test_width_of_the_fusing_modules_is_that_of_the_deepest_layer_at_most():
    student, teacher = levels((3, 6), (8, 4)), levels((4, 7), (8, 4))
    assert built(ReviewKD(), student, teacher).fusions[0].take[0].out_channels == 6
    assert built(ReviewKD(width=2), student, teacher).fusions[0].take[0].out_channels == 2


@pytest.mark.parametrize(
    ("student", "teacher", "counts"),
    [
        (levels((3, 5), (8, 4)), levels((3,), (8,)), "2 and 1"),
        (levels((3,), (8,))[0], levels((3,), (8,))[0], "1 and 1"),
        (levels((3, 5), (8, 4)), levels((3,), (8,))[0], "2 and 1"),
    ],
    ids=["tuples", "single features", "tuple and feature"],
)
def test_other_numbers_of_layers_are_refused_with_the_remedy(student, teacher, counts):
    with pytest.raises(
        ValueError, match=rf"two or more, not {counts}: Match\(\(layer, ...\), \(layer, ...\), ReviewKD"
    ):
        ReviewKD().build(student, teacher)


def test_vectors_are_refused_with_the_remedy():
    student = (torch.zeros(2, 3, 4, 4), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"ReviewKD takes maps \(B, C, H, W\), not \(2, 3\)"):
        ReviewKD().build(student, student)


@pytest.mark.parametrize("height", [1, 2, 4, 5])
def test_hierarchical_distance_leaves_out_the_scales_that_are_no_smaller(height):
    student, teacher = torch.randn(2, 3, 4, height, height)
    scales = [size for size in (4, 2, 1) if size < height]
    total, weights = F.mse_loss(student, teacher), 1.0
    for n, size in enumerate(scales):
        pool = nn.AdaptiveAvgPool2d(size)
        total = total + 0.5 ** (n + 1) * F.mse_loss(pool(student), pool(teacher))
        weights += 0.5 ** (n + 1)
    torch.testing.assert_close(hierarchical_distance(student, teacher), total / weights)
