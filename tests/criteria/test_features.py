"""Laws of the criteria on features: what each ignores, and what it refuses."""

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from limbeck import criteria

torch.manual_seed(0)
STUDENT, TEACHER = torch.randn(2, 4, 6, 5, 3, dtype=torch.float64)
BY_CHANNEL = torch.tensor([3.0, 0.2, 40, 1]).view(1, 4, 1, 1)


def changed(criterion, change):
    """The value with a changed student, with a changed teacher, and of the features as they are."""
    values = [criterion(change(STUDENT), TEACHER), criterion(STUDENT, change(TEACHER)), criterion(STUDENT, TEACHER)]
    return [value.item() for value in values]


def rotate_pooled(feature):
    """Turn the means over the positions, and change what else is at the positions."""
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    means = feature.mean((2, 3), keepdim=True)
    return torch.einsum("dc,bchw->bdhw", rotation, means) + 5 * (feature - means)


def rotate_flattened(feature):
    rotation, _ = torch.linalg.qr(torch.randn(90, 90, dtype=torch.float64))
    return (feature.flatten(1) @ rotation).view_as(feature)


def permute_positions(feature):
    return feature.flatten(2)[:, :, torch.randperm(15)].view_as(feature)


IGNORED = {
    "AttentionTransfer: positive scale": (criteria.AttentionTransfer(), lambda x: 7 * x),
    "AttentionTransfer: order of channels": (criteria.AttentionTransfer(), lambda x: x.flip(1)),
    "ChannelDistillation: order of positions": (criteria.ChannelDistillation(), permute_positions),
    "Cosine: positive scale of each position": (criteria.Cosine(1, 0), lambda x: x * (0.1 + STUDENT[:, :1].square())),
    "CWD: constant added to a channel": (criteria.CWD(2), lambda x: x + x.mean((2, 3), keepdim=True) + 3),
    "PKD: positive scale and shift of each channel": (
        criteria.PKD(),
        lambda x: x * (1 + torch.arange(6).view(6, 1, 1)) - torch.arange(6).view(6, 1, 1),
    ),
    "RKD: rotation": (criteria.RKD(), rotate_pooled),
    "RKD: positive scale": (criteria.RKD(), lambda x: 7 * x),
    "RKD: shift": (criteria.RKD(), lambda x: x + torch.arange(6).view(6, 1, 1)),
    "SimilarityPreserving: rotation": (criteria.SimilarityPreserving(), rotate_flattened),
    "SimilarityPreserving: scale": (criteria.SimilarityPreserving(), lambda x: -7 * x),
}


@pytest.mark.parametrize(("criterion", "change"), IGNORED.values(), ids=IGNORED)
def test_it_ignores(criterion, change):
    torch.manual_seed(1)
    of_student, of_teacher, value = changed(criterion, change)
    assert of_student == pytest.approx(value, rel=1e-4)
    assert of_teacher == pytest.approx(value, rel=1e-4)


NOTICED = {
    "AttentionTransfer: place": (criteria.AttentionTransfer(), lambda x: x.roll(1, 2)),
    "ChannelDistillation: scale": (criteria.ChannelDistillation(), lambda x: 7 * x),
    "Cosine: scale": (criteria.Cosine(0.9, 0.1), lambda x: 7 * x),
    "CWD: scale": (criteria.CWD(), lambda x: 7 * x),
    "PKD: sign": (criteria.PKD(), lambda x: -x),
    "RKD: scale of a channel": (criteria.RKD(), lambda x: x * torch.tensor([1, 1, 1, 9, 1, 1.0]).view(6, 1, 1)),
    "SimilarityPreserving: shift": (criteria.SimilarityPreserving(), lambda x: x + 1),
}


@pytest.mark.parametrize(("criterion", "change"), NOTICED.values(), ids=NOTICED)
def test_it_notices(criterion, change):
    torch.manual_seed(1)
    of_student, of_teacher, value = changed(criterion, change)
    assert abs(of_student / value - 1) > 1e-2
    assert abs(of_teacher / value - 1) > 1e-2


@pytest.mark.parametrize(
    "make",
    [
        criteria.AttentionTransfer,
        criteria.ChannelDistillation,
        criteria.Cosine,
        criteria.CWD,
        criteria.OFD,
        criteria.PKD,
        criteria.RKD,
    ],
)
def test_tokens_count_as_the_positions_of_a_map(make):
    criterion = make()
    if hasattr(criterion, "build"):
        criterion.build(STUDENT, TEACHER)
    tokens = (feature.flatten(2).transpose(1, 2) for feature in (STUDENT, TEACHER))
    torch.testing.assert_close(criterion(*tokens), criterion(STUDENT, TEACHER))


@pytest.mark.parametrize("criterion", [criteria.AttentionTransfer(), criteria.RKD(), criteria.SimilarityPreserving()])
def test_channels_may_differ(criterion):
    doubled = TEACHER.repeat(1, 2, 1, 1)
    torch.testing.assert_close(criterion(STUDENT, doubled), criterion(STUDENT, TEACHER))


def test_rkd_takes_maps_tokens_and_vectors_against_each_other():
    vectors = STUDENT.mean((2, 3)), TEACHER.mean((2, 3))
    tokens = STUDENT.flatten(2).transpose(1, 2), TEACHER.flatten(2).transpose(1, 2)
    expected = criteria.RKD()(*vectors)
    for student in (STUDENT, tokens[0], vectors[0], STUDENT.repeat(1, 1, 2, 1)):
        for teacher in (TEACHER, tokens[1], vectors[1]):
            torch.testing.assert_close(criteria.RKD()(student, teacher), expected)


def test_similarity_preserving_flattens_whatever_it_is_given():
    expected = criteria.SimilarityPreserving()(STUDENT, TEACHER)
    torch.testing.assert_close(criteria.SimilarityPreserving()(STUDENT, TEACHER.flatten(1)), expected)


# --- OFD ---


def ofd(margin):
    criterion = criteria.OFD()
    criterion.margin = torch.tensor(margin).view(-1, 1, 1)
    return criterion


@pytest.mark.parametrize(
    ("student", "teacher", "value"),
    [
        (2.0, 5.0, 9.0),  # below a positive target
        (7.0, 5.0, 4.0),  # above it
        (-3.0, 5.0, 64.0),
        (-0.2, -0.3, 0.01),  # above a negative target
        (-0.4, -0.3, 0.0),  # below it: left alone
        (-0.4, -9.0, 0.01),  # the target is the margin, -0.5
        (-8.0, -9.0, 0.0),
        (-8.0, 0.0, 0.0),
    ],
)
def test_student_is_pulled_to_the_target_but_left_alone_below_one_that_is_not_positive(student, teacher, value):
    student = torch.full((1, 1, 1, 1), student, requires_grad=True)
    loss = ofd([-0.5])(student, torch.full((1, 1, 1, 1), teacher))
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert bool(student.grad) == (value > 0)


def test_margin_is_measured_on_the_example_channel_by_channel():
    teacher = torch.tensor([[[[-1.0, -3.0, 5.0]], [[2.0, 0.0, 4.0]], [[-6.0, 1.0, 1.0]]]])
    criterion = criteria.OFD()
    criterion.build(teacher, teacher)
    assert criterion.margin.flatten().tolist() == [-2, 0, -6]


def test_margin_of_a_norm_is_that_of_what_the_norm_gives():
    norm = nn.BatchNorm2d(4).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -0.5, 2.0, 0.3]))
        norm.bias.copy_(torch.tensor([0.0, 0.2, -1.0, 0.1]))
    example = norm(torch.randn(8, 4, 100, 100))
    measured, known = criteria.OFD(), criteria.OFD(norm)
    measured.build(example, example)
    known.build(STUDENT, STUDENT)
    torch.testing.assert_close(known.margin, measured.margin, rtol=0.02, atol=0)


# --- refused ---

MAP, TOKENS, VECTOR = (3, 4, 5, 5), (3, 9, 4), (3, 4)
SAME_SHAPE = [criteria.ChannelDistillation, criteria.Cosine, criteria.CWD, criteria.FGD, criteria.MGD, criteria.PKD]
BOXES = [torch.zeros(0, 4)] * 3


def compare(make, student, teacher):
    criterion, features = make(), (torch.zeros(student), torch.zeros(teacher))
    if hasattr(criterion, "build"):
        criterion.build(*features)
    return criterion(*features, *([BOXES] if make is criteria.FGD else []))


@pytest.mark.parametrize(
    ("makes", "student", "teacher", "message"),
    [
        ([*SAME_SHAPE, criteria.OFD], MAP, (3, 6, 5, 5), "for other channels pass projector=conv1x1"),
        ([*SAME_SHAPE, criteria.AttentionTransfer, criteria.FKD], MAP, (3, 4, 5, 4), "a Match brings maps to one grid"),
        (SAME_SHAPE[:3], TOKENS, (3, 8, 4), r"tokens need Layer\(..., read=tokens_to_map"),
        ([*SAME_SHAPE, criteria.AttentionTransfer, criteria.FKD], MAP, (2, 4, 5, 5), "a Match brings maps to one grid"),
        ([criteria.CWD, criteria.PKD], VECTOR, VECTOR, r"it takes maps \(B, C, H, W\) or tokens \(B, N, D\)"),
        ([criteria.FGD, criteria.FKD, criteria.MGD], TOKENS, TOKENS, r"takes maps .* read tokens as a map: Layer\("),
    ],
    ids=["channels", "grid", "tokens", "batch", "vectors", "no tokens"],
)
def test_features_that_do_not_fit_are_refused_with_the_remedy(makes, student, teacher, message):
    for make in makes:
        with pytest.raises(ValueError, match=f"{make.__name__}.*{message}"):
            compare(make, student, teacher)


@pytest.mark.parametrize(("make", "least"), [(criteria.RKD, 3), (criteria.SimilarityPreserving, 2)])
def test_batch_of_too_few_images_is_refused(make, least):
    assert make()(torch.randn(least, 4), torch.randn(least, 4)) > 0
    with pytest.raises(
        ValueError, match=f"{make.__name__} relates .* needs {least} or more; this batch has {least - 1}"
    ):
        make()(torch.randn(least - 1, 4), torch.randn(least - 1, 4))


# --- CIRKD ---


def test_cirkd_keeps_no_table_of_similarities_for_the_backward_pass():
    student = torch.randn(3, 4, 10, 10, requires_grad=True)
    kept = []
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        criteria.CIRKD()(student, torch.randn(3, 4, 10, 10)).backward()
    assert max(kept) <= student.numel()
    assert student.grad.any()
