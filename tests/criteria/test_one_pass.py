import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from limbeck import criteria
from limbeck.criteria.shared.one_pass import CHUNK, sum_of_pieces
from tests.criteria.checks import channels_last, large_tensors_kept, value_and_gradients

SHAPE = (4, 6, 5, 3)
BOXES = [torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.3, 0.3, 0.4, 0.5]]), *[torch.zeros(0, 4)] * 3]
CRITERIA = [
    criteria.AttentionTransfer,
    criteria.Cosine,
    criteria.CWD,
    criteria.MGD,
    criteria.OFD,
    criteria.PKD,
    partial(criteria.FGD, 1, 0.5, 0.5, 0.05),
]
every_criterion = pytest.mark.parametrize("make", CRITERIA, ids=[type(make()).__name__ for make in CRITERIA])


def built(make, shape=SHAPE, dtype=torch.float64):
    """A criterion in eval mode with weights that are not 0, and a pair of features."""
    torch.manual_seed(0)
    student, teacher = (torch.randn(shape, dtype=dtype) for _ in range(2))
    criterion = make()
    if hasattr(criterion, "build"):
        criterion.build(student, teacher)
    for weight in criterion.parameters():
        nn.init.normal_(weight, std=0.3)
    return criterion.eval().to(dtype), student.requires_grad_(), teacher


def with_truth(criterion):
    return partial(criterion, truth=BOXES) if isinstance(criterion, criteria.FGD) else criterion


def naive(monkeypatch, criterion):
    """The same formula on whole features, in autograd's own way."""

    def whole(formula, student, teacher, *further, weights=(), dim=0):
        return formula(student, teacher, *further)

    def call(student, teacher):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[type(criterion).__module__], "sum_of_pieces", whole)
            return with_truth(criterion)(student, teacher)

    return call


@pytest.mark.parametrize("size", [1, 100, 10**6])
@every_criterion
def test_value_and_gradients_equal_the_plain_formulas_whatever_the_pieces(monkeypatch, make, size):
    monkeypatch.setitem(CHUNK, "cpu", size)
    criterion, student, teacher = built(make)
    for feature in (student, channels_last(student)):
        expected = value_and_gradients(naive(monkeypatch, criterion), criterion, feature, teacher)
        torch.testing.assert_close(value_and_gradients(with_truth(criterion), criterion, feature, teacher), expected)


@pytest.mark.parametrize("make", [m for m in CRITERIA if m is not criteria.MGD and not isinstance(m, partial)])
def test_tokens_equal_the_plain_formula(monkeypatch, make):
    monkeypatch.setitem(CHUNK, "cpu", 20)
    criterion, student, teacher = built(make, (3, 7, 4))
    expected = value_and_gradients(naive(monkeypatch, criterion), criterion, student, teacher)
    torch.testing.assert_close(value_and_gradients(criterion, criterion, student, teacher), expected)


@every_criterion
def test_value_without_gradients_is_the_same(monkeypatch, make):
    monkeypatch.setitem(CHUNK, "cpu", 100)
    criterion, student, teacher = built(make)
    with torch.no_grad():
        value = with_truth(criterion)(student, teacher)
    assert not value.requires_grad
    torch.testing.assert_close(value, with_truth(criterion)(student, teacher).detach())


@every_criterion
def test_second_backward_over_a_retained_graph_gives_the_same_again(make):
    criterion, student, teacher = built(make)
    tensors = [student, *criterion.parameters()]
    once = value_and_gradients(with_truth(criterion), criterion, student, teacher)[1:]
    loss = with_truth(criterion)(student, teacher)
    (0.5 * loss).backward(retain_graph=True)
    (2 * loss).backward()
    torch.testing.assert_close([tensor.grad for tensor in tensors], [2.5 * gradient for gradient in once])


def penalties(function, tensors, penalised):
    """The gradient of the squared norms of gradients."""
    gradients = torch.autograd.grad(function(), penalised, create_graph=True)
    return torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), tensors, allow_unused=True)


@every_criterion
def test_gradient_can_be_differentiated_again(monkeypatch, make):
    criterion, student, teacher = built(make, (4, 3, 4, 3))
    tensors = [student, *criterion.parameters()]
    results = []
    for function in (naive(monkeypatch, criterion), with_truth(criterion)):
        results.append(penalties(lambda function=function: function(student, teacher).sin(), tensors, tensors))
    torch.testing.assert_close(*results)


@every_criterion
def test_transforms_of_torch_func_see_through_it(make):
    criterion, student, teacher = built(make)
    (expected,) = torch.autograd.grad(with_truth(criterion)(student, teacher), student)
    found = torch.func.grad(lambda student: with_truth(criterion)(student, teacher))(student.detach())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
@every_criterion
def test_it_works_inside_activation_checkpointing(make, use_reentrant):
    criterion, student, teacher = built(make)
    call = with_truth(criterion)
    tensors = [student, *criterion.parameters()]
    value, *gradients = value_and_gradients(lambda s, t: call(s.sin(), t), criterion, student, teacher)
    loss = checkpoint(lambda s: call(s.sin(), teacher), student, use_reentrant=use_reentrant)
    loss.backward()
    torch.testing.assert_close([loss, *(tensor.grad for tensor in tensors)], [value, *gradients])


def test_second_backward_through_a_random_mask_takes_the_same_mask():
    criterion, student, teacher = built(criteria.MGD)
    criterion.train()
    loss = criterion(student, teacher)
    first, second = (torch.autograd.grad(loss, student, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(first, second)


@every_criterion
def test_only_the_gradient_of_the_students_feature_is_kept_for_the_backward_pass(monkeypatch, make):
    monkeypatch.setitem(CHUNK, "cpu", 6 * 30 * 30)
    criterion, student, teacher = built(make, (4, 6, 30, 30), torch.float32)
    assert large_tensors_kept(with_truth(criterion), student, teacher) == 1


@pytest.mark.parametrize("make", [criteria.MGD, CRITERIA[-1]], ids=["MGD", "FGD"])
def test_frozen_weights_get_no_gradient_and_change_no_other(make):
    criterion, student, teacher = built(make)
    value, gradient, *_ = value_and_gradients(with_truth(criterion), criterion, student, teacher)
    criterion.requires_grad_(False)
    loss = with_truth(criterion)(student, teacher)
    loss.backward()
    torch.testing.assert_close([loss, student.grad], [value, gradient])
    assert all(weight.grad is None for weight in criterion.parameters())


# --- the function itself ---


def weighted(student, teacher, further, *, weight):
    return (weight * further * student.sin() * teacher).sum()


@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("size", [1, 7, 14, 10**6])
def test_features_and_what_goes_with_them_are_cut_along_one_dimension(monkeypatch, dim, size):
    monkeypatch.setitem(CHUNK, "cpu", size)
    torch.manual_seed(0)
    student, teacher, further, weight = (torch.randn(shape, dtype=torch.float64) for shape in [(5, 7)] * 3 + [()])
    student.requires_grad_()
    weight.requires_grad_()
    seen = []

    def formula(student, teacher, further):
        seen.append(student.shape[dim])
        return weighted(student, teacher, further, weight=weight)

    value = -0.3 * sum_of_pieces(formula, student, teacher, further, weights=[weight], dim=dim)
    expected = -0.3 * weighted(student, teacher, further, weight=weight)
    results = [(loss, *torch.autograd.grad(loss, [student, weight])) for loss in (value, expected)]
    torch.testing.assert_close(*results)
    length, across = student.shape[dim], student.shape[1 - dim]
    assert sum(seen) == length
    assert max(seen) == min(length, max(1, size // across))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@every_criterion
def test_features_in_low_precision_are_compared_in_float32(make, dtype):
    criterion, student, teacher = built(make, dtype=torch.float32)
    low = student.detach().to(dtype).requires_grad_(), teacher.to(dtype)
    exact = low[0].detach().float().requires_grad_(), low[1].float()
    (value, gradient), (expected, expected_gradient) = (
        (found := with_truth(criterion)(*pair), *torch.autograd.grad(found, pair[0])) for pair in (low, exact)
    )
    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient.float(), expected_gradient, rtol=0.01, atol=1e-6)


def test_a_gradient_too_small_for_float16_survives_a_scaled_loss():
    student = torch.full((2, 3), 1.0, dtype=torch.float16, requires_grad=True)
    loss = sum_of_pieces(lambda here, there: 1e-9 * (here - there).sum(), student, torch.zeros_like(student))
    (2.0**20 * loss).backward()
    torch.testing.assert_close(student.grad.float(), torch.full((2, 3), 1e-9 * 2.0**20), rtol=1e-3, atol=0)
