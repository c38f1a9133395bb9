import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck import Distiller, EarlyDecay, Match, conv1x1
from limbeck.criteria import FGD, KD, ChannelTransform
from limbeck.training.preflight import Row, preflight
from tests.networks import convnet, images


class Weighted(nn.Module):
    """A criterion with two weights of its own, of which ``compare`` uses what it likes."""

    def __init__(self, compare):
        super().__init__()
        self.one, self.two = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        self.compare = compare

    def forward(self, student, teacher):
        return self.compare(self, student, teacher)


def use_both(criterion, student, teacher):
    return F.mse_loss(student * criterion.one + criterion.two, teacher)


def use_both_layers(student, teacher):
    return F.mse_loss(student[0].mean(1), teacher[0].mean(1)) + F.mse_loss(student[1], teacher[1])


def distiller_of(*matches, student=None, teacher=None, **options):
    options = {"example": (images(),)} | options
    return Distiller(student or convnet(4), teacher or convnet(4, seed=1), matches, **options)


def test_every_match_is_a_row_with_shapes_parameters_weight_and_value():
    student, teacher = convnet(4, stride=1).eval(), convnet(8, seed=1).eval()
    distiller = distiller_of(
        Match("body", "body", nn.MSELoss(), projector=conv1x1, weight=0.25),
        Match(("stem", "head"), ("norm", ""), use_both_layers),
        Match("", "", KD(), weight="auto"),
        student=student,
        teacher=teacher,
    )
    shrunk = F.interpolate(student[:4](images()), (4, 4), mode="area")
    first = F.mse_loss(distiller.matches[0].projector(shrunk), teacher[:4](images())).item()
    pair = [(model[:n](images()), model(images())) for model, n in ((student, 1), (teacher, 2))]
    second = use_both_layers(*pair).item()
    third = KD()(student(images()), teacher(images())).item()
    close = [pytest.approx(value, rel=1e-5) for value in (first, second, third)]
    assert preflight(distiller, (images(),)) == [
        Row("MSELoss:body", "body (8, 8, 8)", "body (16, 4, 4)", "8x8 to 4x4", 8 * 16 + 16, "0.25", close[0]),
        Row(
            "use_both_layers:stem+head",
            "stem (4, 8, 8), head (5,)",
            "norm (8, 8, 8), output (5,)",
            "same",
            0,
            "1",
            close[1],
        ),
        Row("KD:output", "output (5,)", "output (5,)", "same", 0, "auto", close[2]),
    ]


def test_gradients_buffers_and_modes_are_as_before():
    distiller = distiller_of(Match("body", "body", ChannelTransform()))
    distiller.student.act.eval()
    modes = [module.training for module in distiller.modules()]
    distiller.student.stem.weight.grad = torch.full_like(distiller.student.stem.weight, 3)
    before = copy.deepcopy(distiller.state_dict())
    with torch.no_grad():
        preflight(distiller, (images(8),))
    assert [module.training for module in distiller.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in distiller.state_dict().items())
    grads = {name for name, parameter in distiller.named_parameters() if parameter.grad is not None}
    assert grads == {"student.stem.weight"}
    assert (distiller.student.stem.weight.grad == 3).all()


def test_truth_inputs_by_name_and_inputs_of_the_teacher_are_passed_on():
    def criterion(student, teacher, truth):
        return F.mse_loss(student, teacher) * truth

    criterion.needs_truth = True
    teacher_inputs = {"input": images(size=32)}
    match = Match("body", "body", criterion)
    distiller = distiller_of(match, truth=torch.tensor(1.0), teacher_inputs=teacher_inputs)
    one, two = (
        preflight(distiller, {"input": images()}, truth=torch.tensor(truth), teacher_inputs=teacher_inputs)[0]
        for truth in (1.0, 2.0)
    )
    assert two.value == pytest.approx(2 * one.value)
    assert one.grid == "4x4 to 8x8"


def freeze_student(distiller):
    distiller.student.requires_grad_(False)


def poison_teacher(distiller):
    nn.init.constant_(distiller.teacher.model.stem.weight, torch.nan)


def copy_teacher(distiller):
    distiller.student.load_state_dict(distiller.teacher.model.state_dict())


def detach_student(distiller):  # which at construction would be refused there
    distiller.matches[0].criterion.compare = lambda c, s, t: use_both(c, s.detach(), t)


DEFECTS = {
    "teacher with nan": (nn.MSELoss(), poison_teacher, "MSELoss:body is nan on the first batch; check the teacher's"),
    "infinite": (lambda s, t: (s - t).sum() / 0, None, "is -?inf on the first batch"),
    "student is the teacher": (
        nn.MSELoss(),
        copy_teacher,
        "MSELoss:body is exactly 0 .* teaches nothing; are these the layers",
    ),
    "frozen student": (nn.MSELoss(), freeze_student, "student's feature has no gradient; is that part .* frozen?"),
    "student detached": (
        Weighted(use_both),
        detach_student,
        "gives no gradient to body, so that would never learn",
    ),
    "unused weight": (
        Weighted(lambda c, s, t: F.mse_loss(s * c.one, t)),
        None,
        "gives no gradient to criterion.two, so that would never learn",
    ),
}


@pytest.mark.parametrize(("criterion", "spoil", "message"), DEFECTS.values(), ids=DEFECTS)
def test_match_that_would_teach_nothing_stops_the_run(criterion, spoil, message):
    distiller = distiller_of(Match("body", "body", criterion))
    if spoil is not None:
        spoil(distiller)
    with pytest.raises(ValueError, match=message):
        preflight(distiller, (images(),))


def test_criterion_that_detaches_the_student_stops_the_run():
    made = []  # at construction it would be refused there

    def detached(student, teacher):
        return F.mse_loss(student.detach() if made else student, teacher)

    made.append(distiller_of(Match("body", "body", detached)))
    with pytest.raises(ValueError, match="detached:body gives no gradient to body"):
        preflight(made[0], (images(),))


def test_criterion_that_is_only_looked_at_needs_no_gradient():
    def distance(student, teacher):
        return F.mse_loss(student.detach(), teacher)

    (row,) = preflight(distiller_of(Match("body", "body", distance, weight=0.0)), (images(),))
    assert (row.weight, row.value > 0) == ("0", True)


def test_projector_that_blocks_the_gradient_stops_the_run():
    distiller = distiller_of(Match("body", "body", nn.MSELoss(), projector=conv1x1))
    nn.init.zeros_(distiller.matches[0].projector.weight)
    with pytest.raises(ValueError, match="MSELoss:body gives no gradient to body, so that would never learn"):
        preflight(distiller, (images(),))


BOXES = [torch.tensor([[0.1, 0.1, 0.5, 0.6]])] * 2


def test_weights_behind_a_layer_that_starts_at_zero_are_no_defect():
    (row,) = preflight(distiller_of(Match("body", "body", FGD()), truth=BOXES), (images(),), truth=BOXES)
    assert row.parameters == 2 * (8 + 1 + 8 * 4 + 4 + 2 * 4 + 4 * 8 + 8)  # of two blocks of global context


@pytest.mark.parametrize("spoil", ["unused", "student"])
def test_layer_that_starts_at_zero_hides_no_weight_without_a_gradient_and_no_blocked_student(spoil):
    def compare(criterion, student, teacher):
        added = (student.mean((2, 3)) * criterion.one) @ criterion.zero
        student = student.detach() if spoil == "student" else student
        rest = 0 if spoil == "unused" else criterion.two
        return F.mse_loss(student + added[:, :, None, None] + rest, teacher)

    criterion = Weighted(compare)
    criterion.zero = nn.Parameter(torch.zeros(8, 8))
    name = {"unused": "criterion.two", "student": "body"}[spoil]
    with pytest.raises(ValueError, match=f"gives no gradient to {name}, so that would never learn"):
        preflight(distiller_of(Match("body", "body", criterion)), (images(),))


def test_weight_that_changes_with_progress_is_named_by_its_function():
    distiller = distiller_of(Match("body", "body", nn.MSELoss(), weight=EarlyDecay(6.0)))
    (row,) = preflight(distiller, (images(),))
    assert row.weight == str(EarlyDecay(6.0))


def test_frozen_weight_of_a_criterion_is_no_defect():
    criterion = Weighted(use_both)
    criterion.two.requires_grad_(False)
    (row,) = preflight(distiller_of(Match("body", "body", criterion)), (images(),))
    assert row.value > 0


def test_every_layer_of_a_tuple_needs_a_gradient():
    def use_first(student, teacher):
        return F.mse_loss(student[0], teacher[0])

    distiller = distiller_of(Match(("stem", "body"), ("stem", "body"), use_first))
    with pytest.raises(ValueError, match=r"use_first:stem\+body gives no gradient to body"):
        preflight(distiller, (images(),))
