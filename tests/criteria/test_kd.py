import pytest
import torch

from limbeck.criteria import KD

K = torch.arange(15, dtype=torch.float64).view(3, 5)


@pytest.mark.parametrize(("temperature", "value"), [(4, 0.562857), (1, 0.413522)])
def test_golden_values(temperature, value):
    loss = KD(temperature)(torch.sin(1.1 * K), 2 * torch.cos(0.9 * K))
    assert loss.item() == pytest.approx(value, abs=1e-6)


def test_temperature_is_4_unless_given():
    assert KD()(torch.sin(1.1 * K), 2 * torch.cos(0.9 * K)).item() == pytest.approx(0.562857, abs=1e-6)


@pytest.mark.parametrize("temperature", [1, 4, 20])
def test_identical_logits_give_zero(temperature):
    assert KD(temperature)(K.sin(), K.sin()) == 0


def test_constant_added_to_a_samples_logits_changes_nothing():
    shift = torch.tensor([[3.0], [-7.0], [0.5]])
    torch.testing.assert_close(KD()(K.sin() + shift, K.cos() - shift), KD()(K.sin(), K.cos()))


def test_square_of_the_temperature_keeps_the_size_of_the_gradient():
    sizes = []
    for temperature in (20, 200):
        student = K.sin().requires_grad_()
        KD(temperature)(student, K.cos()).backward()
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.parametrize(
    ("student", "teacher"), [((2, 5), (2, 6)), ((2, 5), (3, 5)), ((2, 5, 4, 4), (2, 5, 4, 4)), ((5,), (5,))]
)
def test_logits_that_do_not_fit_are_refused(student, teacher):
    with pytest.raises(ValueError, match=r"KD compares logits \(B, K\) of the same classes; student has"):
        KD()(torch.zeros(student), torch.zeros(teacher))
