import copy

import pytest
import torch

from limbeck import Match, criteria
from tests.criteria.contract import CRITERIA, OWN, Case
from tests.networks import compiled


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])


every_criterion = each(CRITERIA)
every_criterion_once = each(list({case.id.split()[0]: case for case in reversed(CRITERIA)}.values()))  # its first shape


def made(case: Case, dtype=torch.float32):
    """The criterion as a function of the two features, and these."""
    student, teacher = case.student().to(dtype), case.teacher().to(dtype)
    criterion, truth = case.criterion(student, teacher), case.truth(teacher)
    return lambda student, teacher: criterion(student, teacher, *truth), student.requires_grad_(), teacher


def test_every_public_criterion_is_held_to_the_contract():
    assert {case.id.split()[0] for case in CRITERIA} == {*criteria.__all__, OWN.__name__}


@every_criterion
def test_value_is_a_finite_scalar_of_a_size_above_zero(case):
    criterion, student, teacher = made(case)
    value = criterion(student, teacher)
    assert value.shape == ()
    assert 0 < value < torch.inf


@each([case for case in CRITERIA if case.minimum is not None])
def test_minimum_is_zero_where_student_equals_teacher(case):
    criterion, _, teacher = made(case, torch.float64)
    student = teacher.clone().requires_grad_()
    value = criterion(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value) < case.minimum
    assert gradient.abs().max() < case.minimum
    for size in (1e-3, 1e-1):
        assert criterion(teacher + size * case.student().double(), teacher) > value


@every_criterion
def test_step_against_the_gradient_of_the_student_lowers_the_value(case):
    criterion, student, teacher = made(case, torch.float64)
    value = criterion(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    assert criterion(student - 1e-4 * gradient / gradient.norm(), teacher) < value


@every_criterion
def test_gradient_reaches_the_student_and_never_the_teacher(case):
    criterion, student, teacher = made(case)
    teacher.requires_grad_()
    criterion(student, teacher).backward()
    assert student.grad.isfinite().all()
    assert student.grad.any()
    assert teacher.grad is None


@each([case for case in CRITERIA if case.exact])
def test_gradient_of_the_student_passes_gradcheck(case):
    criterion, student, teacher = made(case, torch.float64)
    assert torch.autograd.gradcheck(lambda student: criterion(student, teacher), (student,), fast_mode=True)


@every_criterion
def test_features_are_left_as_they_are(case):
    criterion, student, teacher = made(case)
    before = student.detach().clone(), teacher.clone()
    criterion(student, teacher).backward()
    assert torch.equal(student, before[0])
    assert torch.equal(teacher, before[1])


@every_criterion
def test_bfloat16_features_give_close_to_what_float32_features_give(case):
    student, teacher = case.student().requires_grad_(), case.teacher()
    criterion, truth = case.criterion(student, teacher), case.truth(teacher)
    low = student.detach().bfloat16().requires_grad_()
    results = []
    for pair in ((student, teacher), (low, teacher.bfloat16())):
        value = Match("", "", copy.deepcopy(criterion))(*pair, *truth)
        assert value.dtype == torch.float32
        results.append((value, torch.autograd.grad(value, pair[0])[0].float()))
    (value, gradient), (low_value, low_gradient) = results
    torch.testing.assert_close(low_value, value, rtol=0.03, atol=1e-3)
    assert (low_gradient - gradient).norm() < 0.05 * gradient.norm()


@every_criterion_once
def test_it_compiles_without_a_graph_break_to_the_same_value_and_gradient(case):
    criterion, student, teacher = made(case)
    results = []
    for function in (criterion, compiled(criterion)):
        value = function(student, teacher)
        results.append((value, torch.autograd.grad(value, student)))
    torch.testing.assert_close(*results)
