from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from limbeck.criteria import ChannelTransform
from limbeck.criteria.channel_transform import CHUNK, one_pass
from tests.criteria.checks import channels_last, large_tensors_kept, value_and_gradients
from tests.networks import compiled

MAPS = (3, 4, 5, 7), (3, 6, 5, 7)
TOKENS = (3, 11, 4), (3, 11, 6)


def naive(criterion, student, teacher):
    """The formula as it is written: two 1x1 convolutions, then the sum of squares over the batch size."""
    if student.ndim == 3:  # tokens (B, N, D) as a map (B, D, N, 1)
        student, teacher = (feature.transpose(1, 2).unsqueeze(-1) for feature in (student, teacher))
    hidden = F.conv2d(student, criterion.hidden.weight[:, :, None, None], criterion.hidden.bias)
    output = F.conv2d(hidden.relu(), criterion.output.weight[:, :, None, None], criterion.output.bias)
    return ((output - teacher) ** 2).sum() / len(student)


def make(shapes=MAPS, hidden=None, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    student, teacher = (torch.randn(shape, dtype=dtype) for shape in shapes)
    criterion = ChannelTransform(hidden)
    criterion.build(student, teacher)
    return criterion.to(dtype), student.requires_grad_(), teacher


def check_equals_naive(criterion, student, teacher, function=None):
    expected = value_and_gradients(partial(naive, criterion), criterion, student, teacher)
    torch.testing.assert_close(value_and_gradients(function or criterion, criterion, student, teacher), expected)


# --- it is the formula ---


@pytest.mark.parametrize("hidden", [None, 1, 9])
@pytest.mark.parametrize("shapes", [MAPS, TOKENS, ((1, 4, 1, 1), (1, 2, 1, 1))], ids=["maps", "tokens", "one position"])
def test_value_and_gradients_equal_the_naive_form(shapes, hidden):
    criterion, student, teacher = make(shapes, hidden)
    assert criterion.hidden.out_features == (hidden or (shapes[1][1] if len(shapes[1]) == 4 else shapes[1][2]))
    check_equals_naive(criterion, student, teacher)


@pytest.mark.parametrize("student_last", [False, True])
@pytest.mark.parametrize("teacher_last", [False, True])
def test_channels_last_maps_equal_the_naive_form(student_last, teacher_last):
    criterion, student, teacher = make()
    student = channels_last(student) if student_last else student
    teacher = channels_last(teacher) if teacher_last else teacher
    check_equals_naive(criterion, student, teacher)


@pytest.mark.parametrize("size", [1, 40, 100, 6 * 35, 2 * 6 * 35, 10**6])
@pytest.mark.parametrize("shapes", [MAPS, TOKENS], ids=["maps", "tokens"])
def test_result_does_not_depend_on_the_size_of_the_chunks(monkeypatch, shapes, size):
    monkeypatch.setitem(CHUNK, "cpu", size)
    criterion, student, teacher = make(shapes)
    check_equals_naive(criterion, student, teacher)
    if student.ndim == 4:
        check_equals_naive(criterion, channels_last(student), teacher)


@pytest.mark.parametrize("shapes", [((2, 3, 3, 2), (2, 4, 3, 2)), ((2, 5, 3), (2, 5, 4))], ids=["maps", "tokens"])
def test_gradients_pass_gradcheck(monkeypatch, shapes):
    monkeypatch.setitem(CHUNK, "cpu", 12)
    criterion, student, teacher = make(shapes)
    names, weights = zip(*criterion.named_parameters(), strict=True)

    def loss(student, *weights):
        return functional_call(criterion, dict(zip(names, weights, strict=True)), (student, teacher))

    assert torch.autograd.gradcheck(loss, (student, *weights))


# --- gradients in every use ---


def test_gradient_reaches_the_student_and_all_weights_but_never_the_teacher():
    criterion, student, teacher = make()
    teacher.requires_grad_()
    criterion(student, teacher).backward()
    assert all(tensor.grad.any() for tensor in (student, *criterion.parameters()))
    assert teacher.grad is None


def test_incoming_gradient_multiplies_the_gradients():
    criterion, student, teacher = make()
    once = value_and_gradients(criterion, criterion, student, teacher)
    scaled = value_and_gradients(lambda *features: -0.3 * criterion(*features), criterion, student, teacher)
    torch.testing.assert_close(scaled, [-0.3 * tensor for tensor in once])


def test_two_calls_in_one_graph_add_up():
    criterion, student, teacher = make()
    other = torch.randn_like(teacher)
    expected = value_and_gradients(
        lambda s, t: naive(criterion, s, t) + 2 * naive(criterion, s.sin(), other), criterion, student, teacher
    )
    result = value_and_gradients(
        lambda s, t: criterion(s, t) + 2 * criterion(s.sin(), other), criterion, student, teacher
    )
    torch.testing.assert_close(result, expected)


def test_second_backward_over_a_retained_graph_gives_the_same_again():
    criterion, student, teacher = make()
    tensors = [student, *criterion.parameters()]
    expected = [2.5 * gradient for gradient in value_and_gradients(criterion, criterion, student, teacher)[1:]]
    loss = criterion(student, teacher)
    (0.5 * loss).backward(retain_graph=True)
    (2 * loss).backward()
    torch.testing.assert_close([tensor.grad for tensor in tensors], expected)


@pytest.mark.parametrize("shapes", [MAPS, TOKENS], ids=["maps", "tokens"])
def test_gradients_can_be_differentiated_again(shapes):
    criterion, student, teacher = make(shapes)
    tensors = [student, *criterion.parameters()]
    results = []
    for function in (partial(naive, criterion), criterion):
        gradients = torch.autograd.grad(function(student, teacher), tensors, create_graph=True)
        results.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), tensors))
    torch.testing.assert_close(*results)


def test_transforms_of_torch_func_see_through_it():
    criterion, student, teacher = make()
    (expected,) = torch.autograd.grad(naive(criterion, student, teacher), student)
    torch.testing.assert_close(torch.func.grad(lambda s: criterion(s, teacher))(student.detach()), expected)
    each = torch.func.vmap(torch.func.grad(lambda s, t: criterion(s[None], t[None])))(student.detach(), teacher)
    torch.testing.assert_close(each / len(student), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_it_works_inside_activation_checkpointing(use_reentrant):
    criterion, student, teacher = make()
    tensors = [student, *criterion.parameters()]
    value, *gradients = value_and_gradients(lambda s, t: naive(criterion, s.sin(), t), criterion, student, teacher)
    loss = checkpoint(lambda s: criterion(s.sin(), teacher), student, use_reentrant=use_reentrant)
    loss.backward()
    torch.testing.assert_close([loss, *(tensor.grad for tensor in tensors)], [value, *gradients])


def test_value_without_gradients_is_the_same():
    criterion, student, teacher = make()
    with torch.no_grad():
        value = criterion(student, teacher)
    assert not value.requires_grad
    assert torch.equal(value, criterion(student, teacher).detach())


@pytest.mark.parametrize("shapes", [MAPS, TOKENS], ids=["maps", "tokens"])
def test_it_compiles_without_a_graph_break(shapes):
    criterion, student, teacher = make(shapes)
    check_equals_naive(criterion, student, teacher, compiled(lambda s, t: 3 * criterion(s, t) / 3))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
def test_it_is_a_well_behaved_operator():
    criterion, student, teacher = make(TOKENS)
    torch.library.opcheck(one_pass, (student, teacher, None, *criterion.parameters()))


# --- precision and memory ---


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_close_to_float32(dtype):
    criterion, student, teacher = make(dtype=torch.float32)
    low = value_and_gradients(criterion, criterion, student.detach().to(dtype).requires_grad_(), teacher.to(dtype))
    assert [tensor.dtype for tensor in low] == [torch.float32, dtype, *[torch.float32] * 4]
    for ours, expected in zip(low, value_and_gradients(criterion, criterion, student, teacher), strict=True):
        assert (ours - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize(
    ("dtype", "target"),
    [
        (torch.bfloat16, 1),
        (torch.bfloat16, 100),
        (torch.float16, 1),
        (torch.float16, 100),
    ],
)
def test_sums_under_autocast_are_in_float32(dtype, target):
    student = torch.zeros(1, 2, 300, 300, dtype=dtype, requires_grad=True)
    teacher = torch.full((1, 1, 300, 300), target, dtype=dtype)
    criterion = ChannelTransform(hidden=1)
    criterion.build(student, teacher)
    with torch.no_grad():
        for parameter in criterion.parameters():
            parameter.zero_()
        criterion.hidden.bias.fill_(0.5)
        criterion.output.weight.fill_(1)
    with torch.autocast("cpu", dtype):
        loss = criterion(student, teacher)
    loss.backward()
    positions, error = 300 * 300, 0.5 - target  # more positions than bfloat16 can count, or float16 hold
    gradients = [parameter.grad.sum().item() for parameter in criterion.output.parameters()]
    assert loss.item() == pytest.approx(positions * error**2, rel=1e-3)
    assert gradients == pytest.approx([positions * error, 2 * positions * error], rel=5e-3)
    assert criterion.hidden.bias.grad.item() == pytest.approx(2 * positions * error, rel=5e-3)


def test_only_the_gradient_of_the_students_feature_is_kept_for_the_backward_pass():
    criterion, student, teacher = make(((2, 50, 50, 50), (2, 60, 50, 50)))
    assert large_tensors_kept(criterion, student, teacher) == 1
    assert large_tensors_kept(partial(naive, criterion), student, teacher) > 1


# --- refused ---


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((2, 4, 5, 5), (2, 6, 5, 4), r"student \(2, 4, 5, 5\) and teacher \(2, 6, 5, 4\) may differ in their channels"),
        ((2, 4, 5, 5), (1, 6, 5, 5), "may differ in their channels only"),
        ((2, 9, 4), (2, 10, 6), r"tokens need Layer\(..., read=tokens_to_map"),
        ((2, 4), (2, 6), r"takes maps \(B, C, H, W\) or tokens \(B, N, D\), not \(2, 4\)"),
    ],
)
def test_features_that_do_not_fit_are_refused_with_the_remedy(student, teacher, message):
    criterion = ChannelTransform()
    criterion.build(torch.zeros(student), torch.zeros(teacher))
    with pytest.raises(ValueError, match=message):
        criterion(torch.zeros(student), torch.zeros(teacher))
