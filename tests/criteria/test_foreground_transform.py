from functools import partial

import pytest
import torch

from limbeck.criteria import ChannelTransform, ForegroundTransform
from limbeck.criteria.channel_transform import CHUNK, one_pass
from tests.criteria.checks import value_and_gradients

# Of a map of 4 rows and 8 columns; the first box touches columns 1 to 4 and rows 1 to 2, both ends included.
BOXES = [torch.tensor([[0.2, 0.3, 0.5, 0.5], [0.8, 0.0, 0.9, 0.1]]), torch.zeros(0, 4)]
INSIDE = torch.tensor(
    [
        [0, 0, 0, 0, 0, 0, 1, 1],
        [0, 1, 1, 1, 1, 0, 1, 1],
        [0, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
).bool()


def make(background):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 4, 8).double(), torch.randn(2, 6, 4, 8).double()
    criterion = ForegroundTransform(background, hidden=7)
    criterion.build(student, teacher)
    return criterion.double(), student.requires_grad_(), teacher


def naive(criterion, student, teacher):
    layers = criterion.transform.hidden, criterion.transform.output
    hidden, output = (partial(torch.einsum, "oc,bchw->bohw", layer.weight) for layer in layers)
    made = output((hidden(student) + layers[0].bias[:, None, None]).relu()) + layers[1].bias[:, None, None]
    weights = torch.full((2, 1, 4, 8), criterion.background).double()
    weights[0, 0, INSIDE] = 1
    return (weights * (made - teacher) ** 2).sum() / 2


@pytest.mark.parametrize("chunk", [1, 60, 2**21])
@pytest.mark.parametrize("background", [0.0, 0.1, 3.0])
def test_each_square_is_weighed_by_whether_a_box_touches_it(background, chunk, monkeypatch):
    monkeypatch.setitem(CHUNK, "cpu", chunk)
    criterion, student, teacher = make(background)
    expected = value_and_gradients(partial(naive, criterion), criterion, student, teacher)
    found = value_and_gradients(lambda *features: criterion(*features, BOXES), criterion, student, teacher)
    torch.testing.assert_close(found, expected)


def test_with_a_background_of_one_it_is_channel_transform():
    criterion, student, teacher = make(1.0)
    assert torch.equal(criterion(student, teacher, BOXES), criterion.transform(student, teacher))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch's own
def test_the_operator_takes_weights_of_positions_as_torch_demands():
    transform = ChannelTransform()
    rows, target = torch.randn(2, 9, 4, requires_grad=True), torch.randn(2, 9, 6)
    transform.build(rows, target)
    torch.library.opcheck(one_pass, (rows, target, torch.rand(2, 9), *transform.parameters()))


def test_a_negative_background_and_labels_for_boxes_are_refused():
    with pytest.raises(ValueError, match=r"background is -0.1; it is a weight, 0 or more"):
        ForegroundTransform(-0.1)
    criterion, student, teacher = make(0.1)
    with pytest.raises(ValueError, match="ForegroundTransform needs the boxes of each of the 2 images"):
        criterion(student, teacher, torch.tensor([1, 2]))
