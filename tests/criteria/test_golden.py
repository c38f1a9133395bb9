"""Values of the criteria on fixed inputs, most of them checked against the code of the methods' authors."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from limbeck import criteria
from limbeck.criteria.ofd import margin_of
from limbeck.criteria.review_kd import hierarchical_distance

K = torch.arange(3 * 4 * 4 * 4, dtype=torch.float64).view(3, 4, 4, 4)
STUDENT, TEACHER = torch.sin(0.7 * K + 0.3), 1.5 * torch.cos(0.4 * K)
N = torch.arange(3 * 5, dtype=torch.float64).view(3, 5)
LOGITS = torch.sin(1.1 * N), 2 * torch.cos(0.9 * N)  # of the student, of the teacher
LABELS = torch.tensor([0, 1, 1])  # the teacher has 0, 2, 4
BOXES = [torch.tensor([[0.3, 0.05, 0.7, 0.2]])] * 3  # rows 0 and 1, columns 1 to 3


@pytest.mark.parametrize(
    ("criterion", "value"),
    [
        (criteria.AttentionTransfer(), 0.022891),
        (criteria.ChannelDistillation(), 0.006347),
        (criteria.CWD(), 0.610012),
        (criteria.CWD(temperature=4), 0.779989),
        (criteria.PKD(), 0.959357),
        (criteria.SimilarityPreserving(), 0.051980),
        (criteria.RKD(distance=1, angle=0), 0.015829),
        (criteria.RKD(distance=0, angle=1), 0.001731),
        (hierarchical_distance, 1.031888),
        (criteria.Cosine(1, 0), 0.996513),
        (criteria.Cosine(0, 1), 0.644975),
        (criteria.Cosine(), 0.961359),
        (criteria.Cosine(0.5, 0.5), 0.820744),
        (criteria.CIRKD(), 6.481955),  # by the authors' code, dab64db
        (criteria.CIRKD(temperature=1), 0.470971),
        (criteria.Cosine(over="map"), 0.946417),  # by Theia's code, 59d0448
        (criteria.Cosine(over="map", standardise=True), 0.942826),
    ],
    ids=lambda it: getattr(it, "__name__", str(it)),
)
def test_of_two_maps(criterion, value):
    assert criterion(STUDENT, TEACHER).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("foreground", "background", "attention", "value"),
    [(1, 0, 0, 8.640890), (0, 1, 0, 8.167953), (0, 0, 1, 9.984117)],
    ids=["foreground", "background", "attention"],
)
def test_of_fgd(foreground, background, attention, value):
    criterion = criteria.FGD(foreground, background, attention, relation=0)
    criterion.build(STUDENT, TEACHER)
    assert criterion.double()(STUDENT, TEACHER, BOXES).item() == pytest.approx(value, abs=1e-6)


def numbered(criterion):
    """In float64, with fixed weights that are told apart."""
    with torch.no_grad():
        for n, parameter in enumerate(criterion.double().parameters()):
            k = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_(0.4 * torch.sin(0.7 * k + n).view_as(parameter))
    return criterion


@pytest.mark.parametrize(
    ("shape", "reduction", "pool", "value", "gradient"),
    [
        ((2, 4, 13, 9), 2, 2, 45.59737065165956, 1.0384114861481084),
        ((2, 8, 5, 7), 4, 1, 43.39298230939552, 1.2536920131777156),
    ],
    ids=str,
)
def test_of_fkd_is_that_of_mmrazor(shape, reduction, pool, value, gradient):
    """Value and norm of the student's gradient by FBKDLoss and its connectors of mmrazor 90c7af1."""
    k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)
    student, teacher = torch.sin(0.7 * k + 0.3).requires_grad_(), 1.5 * torch.cos(0.4 * k)
    criterion = criteria.FKD(0.5, 1, 0.5, reduction=reduction, pool=pool)
    criterion.build(student, teacher)
    found = numbered(criterion)(student, teacher)
    assert found.item() == pytest.approx(value, rel=1e-12)
    assert torch.autograd.grad(found, student)[0].norm().item() == pytest.approx(gradient, rel=1e-12)


def wave(shape, shift=0.3):
    return torch.sin(0.7 * torch.arange(torch.Size(shape).numel(), dtype=torch.float64) + shift).view(shape)


@pytest.mark.parametrize(
    ("shape", "stage", "value", "gradient"),
    [
        ((3, 3, 20, 20), 1, 1.520762033698763, 0.05462717863674756),
        ((3, 6, 10, 10), 2, 1.5936437499710847, 0.09264759839605503),
        ((3, 24, 3, 3), 4, 1.5924936526823465, 0.03423615435483173),
        ((3, 197, 8), 1, 2.782682828950719, 0.4296466098916934),  # with a class token
        ((3, 196, 8), 2, 3.02865651412626, 0.039873121423229296),
        ((3, 26, 8), 4, 1.119724871801515, 0.19257494439714667),
    ],
    ids=str,
)
def test_of_the_exits_of_ofa_kd_is_that_of_the_authors(shape, stage, value, gradient):
    """Value and norm of the student's gradient by f7bb896, with biases for queries, keys and values."""
    student = wave(shape).requires_grad_()
    criterion = criteria.OFAKD(1.5, stage=stage)
    criterion.build(student, LOGITS[1])
    found = numbered(criterion)(student, LOGITS[1], LABELS)
    assert found.item() == pytest.approx(value, rel=1e-12)
    assert torch.autograd.grad(found, student)[0].norm().item() == pytest.approx(gradient, rel=1e-10)


@pytest.mark.parametrize(
    ("images", "widths", "side", "value", "gradients"),
    [
        (2, (6, 8), 4, 552.0193029165710, (21.820741173893826, 19.815548834595948, 22.404276289347)),
        (3, (8, 8), 5, 742.4427617499467, (20.76154973760728, 20.71054728545179, 152.68902188471878)),
    ],
    ids=["other widths", "one width"],
)
def test_of_vitkd_is_that_of_the_authors(images, widths, side, value, gradients):
    """Value and norms of the student's gradients by cls_KD 1e5d48f, with alpha 1, beta 0.1 and the mask of seed 0."""
    shapes = [(images, side**2, width) for width in widths]
    of_student = [wave(shapes[0], 0.3 + block) for block in range(3)]
    k = torch.arange(torch.Size(shapes[1]).numel(), dtype=torch.float64).view(shapes[1])
    of_teacher = [1.5 * torch.cos(0.4 * k + block) for block in range(3)]
    student, teacher = ([tokens.mT.unflatten(2, (side, side)) for tokens in each] for each in (of_student, of_teacher))
    student = [feature.requires_grad_() for feature in student]
    criterion = criteria.ViTKD()
    criterion.build(student, teacher)
    torch.manual_seed(0)
    found = numbered(criterion)(student, teacher)
    assert found.item() == pytest.approx(value, rel=1e-12)
    norms = [gradient.norm().item() for gradient in torch.autograd.grad(found, student)]
    assert norms == pytest.approx(gradients, rel=1e-10)


def test_of_the_channel_transform():
    criterion = criteria.ChannelTransform()
    criterion.build(STUDENT, TEACHER)
    i, j = torch.arange(4.0, dtype=torch.float64)[:, None], torch.arange(4.0, dtype=torch.float64)
    with torch.no_grad():
        criterion.double()
        criterion.hidden.weight.copy_(0.5 * torch.sin(i + 2 * j + 1))
        criterion.hidden.bias.fill_(0.1)
        criterion.output.weight.copy_(0.5 * torch.cos(2 * i + j))
        criterion.output.bias.fill_(-0.05)
    assert criterion(STUDENT, TEACHER).item() == pytest.approx(82.853534, abs=1e-6)


@pytest.mark.parametrize(
    ("criterion", "value"),
    [
        (criteria.KD(), 0.562857),
        (criteria.KD(temperature=4), 0.562857),
        (criteria.KD(temperature=1), 0.413522),
        (criteria.KD(temperature=2, standardise=True), 0.216042),
        (criteria.DeiT(), 1.503298),  # by the authors' code, 7e160fe
        pytest.param(lambda student, teacher: criteria.KD(3)(student, teacher) / 5, 0.112286, id="its soft variant"),
        (criteria.WTTM(), 0.379045),  # by the authors' code, fe457b3
        (criteria.WTTM(exponent=0.1), 0.598465),
        (criteria.WTTM(weighed=False), 0.119422),
        (criteria.DIST(1, 0), 0.507966),
        (criteria.DIST(0, 1), 0.055321),
        (criteria.DIST(), 0.563287),
        (criteria.DIST(1, 0, temperature=4), 4.809738),
        (criteria.DIST(0, 1, temperature=4), 0.738835),
        (criteria.DIST(temperature=4), 5.548574),
    ],
    ids=str,
)
def test_of_logits(criterion, value):
    assert criterion(*LOGITS).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize(
    ("criterion", "value"),
    [
        (criteria.GuidedKD(), 0.715777),
        (criteria.DKD(target=1, others=0), 0.296205),
        (criteria.DKD(target=0, others=1), 0.331263),
        (criteria.DKD(), 2.946310),
        (criteria.NKD(others=0), 0.538290),
        (criteria.NKD(others=1), 0.538290 + 1.112359),
        (criteria.NKD(), 2.206828),
        (criteria.OFAKD(), 1.465037),  # by the authors' code, f7bb896
        (criteria.OFAKD(exponent=1.5), 1.448949),
        (criteria.OFAKD(exponent=1.5, temperature=2), 1.217929),
    ],
    ids=str,
)
def test_of_logits_with_labels(criterion, value):
    assert criterion(*LOGITS, LABELS).item() == pytest.approx(value, abs=2e-6)


@pytest.mark.parametrize(("mean", "deviation", "margin"), [(0.5, 1, -0.641077), (0, 1, -0.797885), (4, 1, -3)])
def test_margin_of_ofd(mean, deviation, margin):
    norm = nn.BatchNorm2d(2)
    nn.init.constant_(norm.bias, mean)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([deviation, -deviation]))  # its sign changes nothing
    assert margin_of(norm).flatten().tolist() == pytest.approx([margin] * 2, abs=1e-6)


def test_a_position_without_a_direction_gets_no_gradient():
    student, teacher = torch.randn(2, 4, 3, 3), torch.rand(2, 5, 3, 3)
    student[0, :, 1, 1] = 0
    student.requires_grad_()
    criteria.CIRKD()(student, teacher).backward()
    assert not student.grad[0, :, 1, 1].any()
    assert 0 < student.grad.norm() < 1e3


class Deltas(nn.Module):
    """The rest of a small head, whose boxes are RetinaNet's deltas of an anchor of size 1."""

    def __init__(self):
        super().__init__()
        self.scores, self.boxes = nn.Conv2d(4, 6, 1, bias=False), nn.Conv2d(4, 8, 1, bias=False)
        with torch.no_grad():
            for phase, layer in enumerate((self.scores.double(), self.boxes.double())):
                k = torch.arange(layer.weight.numel(), dtype=torch.float64).view_as(layer.weight)
                layer.weight.copy_(0.6 * torch.sin(1.3 * k + phase))

    def forward(self, first, second):
        logits, deltas = (
            layer(each.relu()).movedim(1, -1).unflatten(-1, (-1, size)).flatten(1, 3)
            for layer, each, size in ((self.scores, first, 3), (self.boxes, second, 4))
        )
        middle, size = deltas[..., :2], deltas[..., 2:].exp()
        return logits, torch.cat([middle - size / 2, middle + size / 2], -1)


@pytest.mark.parametrize(
    ("options", "value", "gradient"),
    [
        ({"boxes": 0}, 0.5243543136691855, 0.06821271273897245),
        ({"scores": 0}, 1.037878081269905, 0.10010796951073249),
        ({}, 1.5622323949390906, 0.12113867977971082),
        ({"scores": 0.4, "boxes": 0.75}, 0.988150286420103, 0.07988509871012876),
    ],
    ids=["scores", "boxes", "both", "weighed"],
)
def test_of_cross_kd_is_that_of_the_authors(options, value, gradient):
    """Value and norm of the student's gradient by align_scale and the losses of CrossKD 87e156a, on real anchors."""
    student, teacher = [], []
    for level, shape in enumerate([(2, 4, 4, 6), (2, 4, 2, 3)]):
        k = torch.arange(torch.Size(shape).numel(), dtype=torch.float64).view(shape)
        student += [torch.sin(0.7 * k + 0.3 + level), torch.sin(0.9 * k + 0.1 + level)]
        teacher += [1.5 * torch.sin(0.4 * k + 1 + level) + 0.3, 2 * torch.sin(0.5 * k + 2 + level) - 0.2]
    student = tuple(each.requires_grad_() for each in student)
    criterion = criteria.CrossKD(Deltas(), **options)
    criterion.build(student, tuple(teacher))
    found = criterion(student, tuple(teacher))
    found.backward()
    norms = torch.stack([each.grad.norm() for each in student if each.grad is not None])
    assert found.item() == pytest.approx(value, rel=1e-6)
    assert norms.norm().item() == pytest.approx(gradient, rel=1e-6)


@pytest.mark.parametrize(
    ("temperature", "inside", "value", "gradient"),
    [
        (10, False, 5.243113192559167, 0.06579569755898229),
        (10, True, 5.2316415810113455, 0.11462866277864131),
        (1, False, 1.1068785714807048, 0.020986936024486636),
    ],
)
def test_of_ld_is_that_of_the_authors(temperature, inside, value, gradient):
    """By the loss of LD 4287990 with weights of 1; inside, at rows 0 and 1, columns 1 and 2, and at 1, 2 and 2, 3."""
    k = torch.arange(2 * 20 * 3 * 4, dtype=torch.float64).view(2, 20, 3, 4)
    student, teacher = (6 * torch.sin(0.7 * k + 0.3)).requires_grad_(), 9 * torch.cos(0.4 * k)
    truth = [torch.tensor([[0.3, 0.05, 0.45, 0.3]]), torch.tensor([[0.55, 0.4, 0.7, 0.6]])]
    found = criteria.LD(temperature, inside=inside)(student, teacher, *[truth] * inside)
    assert found.item() == pytest.approx(value, rel=1e-12)
    assert torch.autograd.grad(found, student)[0].norm().item() == pytest.approx(gradient, rel=1e-12)


@pytest.mark.parametrize("widths", [(20, 24), (18, 18), (4, 4)])
def test_ld_refuses_what_is_no_distribution_of_four_sides(widths):
    with pytest.raises(ValueError, match=f"not {widths[0]} of the student and {widths[1]} of the teacher"):
        criteria.LD()(*(torch.zeros(1, width, 2, 2) for width in widths))


def test_ld_of_objects_needs_their_boxes_and_is_zero_without_any():
    assert criteria.LD(inside=True).needs_truth
    assert not criteria.LD().needs_truth
    student, teacher = torch.randn(2, 1, 8, 3, 3)
    assert criteria.LD(inside=True)(student, teacher, [torch.zeros(0, 4)]) == 0
    with pytest.raises(ValueError, match="LD needs the boxes of each of the 1 images"):
        criteria.LD(inside=True)(student, teacher, None)


@pytest.mark.parametrize(
    ("queries", "value", "gradients"),
    [
        ((5, 7), 5.029212730231945, (0.23861861773257817, 1.116394868353878)),
        ((6, 6), 5.331898406336349, (0.23288026831577785, 0.9893689453549548)),
        ((7, 4), 4.666127933841567, (0.25004836284243015, 1.2519884314103797)),
    ],
)
def test_of_detr_distill_is_that_of_the_authors(queries, value, gradients):
    """Value and norms of the gradients by costs, assigner and losses of DETRDistill b5ee33d."""

    def numbered(count, width, factor, shift):
        k = torch.arange(2 * count * width, dtype=torch.float64).view(2, count, width)
        return torch.sin(factor * k + shift)

    here, there = queries
    logits, boxes = 3 * numbered(here, 3, 0.7, 0.3), numbered(here, 4, 1.1, 0.2)
    teacher = 4 * numbered(there, 3, 0.9, 0.5), numbered(there, 4, 1.3, 0.7).sigmoid()
    logits.requires_grad_(), boxes.requires_grad_()
    found = criteria.DETRDistill(linear_sum_assignment)((logits, boxes.sigmoid()), teacher)
    found.backward()
    assert found.item() == pytest.approx(value, rel=1e-9)
    assert [each.grad.norm().item() for each in (logits, boxes)] == pytest.approx(gradients, rel=1e-9)
