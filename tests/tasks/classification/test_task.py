import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.data.inputs import Inputs
from limbeck.tasks.classification.task import Classification, tail

INPUTS = Inputs(1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Says(nn.Module):
    """A model that reads the class it gives from the first pixel."""

    def __init__(self, classes=10):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        first = images[:, 0, 0, 0].mul(255).round()
        return -((torch.arange(self.classes) - first[:, None]) % self.classes)  # and less sure of each class after it


def batch(says, label):
    image = torch.tensor(says, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 1, 1)
    return {"image": image, "label": torch.tensor(label), "index": torch.arange(len(says))}


def test_the_loss_is_over_labelled_images_only():
    task = Classification(10, INPUTS, labelled_share=0.5)
    output = torch.randn(4, 10)
    label = torch.tensor([3, -1, 5, -1])
    expected = F.cross_entropy(output[[0, 2]], label[[0, 2]])
    torch.testing.assert_close(task.loss(output, {"label": label}), expected)
    assert task.loss(output, {"label": torch.full((4,), -1)}) == 0


def test_top1_top5_and_agreement_are_what_one_counts_by_hand():
    task = Classification(10, INPUTS)
    teacher = task.evaluate_teacher(Says(), [batch([1, 2, 3, 4], [1, 2, 3, 5])])
    assert teacher["top1"] == 0.75
    student = task.evaluate(Says(), [batch([1, 2, 0, 4], [1, 2, 7, 8])])
    assert student.pop("loss") > 0
    assert student == {"top1": 0.5, "top5": 0.75, "agreement": 0.75}
    assert list(student)[:3] == ["top1", "top5", "agreement"]  # what the best student is chosen by is the first


def test_the_validation_loss_is_a_mean_over_images_however_many_a_batch_has():
    task = Classification(10, INPUTS, label_smoothing=0.1, class_weights=torch.arange(10.0))
    model, label = Says(), torch.tensor([1, 7, 0])
    found = task.evaluate(model, [batch([1, 2], [1, 7]), batch([3], [0])])
    output = model(batch([1, 2, 3], [1, 7, 0])["image"] / 255).float()
    assert found["loss"] == pytest.approx(F.cross_entropy(output, label).item(), rel=1e-6)


def test_student_and_teacher_get_their_own_size_and_normalisation():
    task = Classification(10, Inputs(2, std=(1.0, 1.0, 1.0)), Inputs(4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    images = {"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8)}
    assert task.inputs(images)[0].shape[-1] == 2
    torch.testing.assert_close(task.inputs(images)[0][0, :, 0, 0], -torch.tensor([0.485, 0.456, 0.406]))
    assert task.teacher_inputs(images)[0].shape[-1] == 4
    assert not task.teacher_inputs(images)[0].any()


def test_a_teacher_no_better_than_chance_is_refused():
    task = Classification(10, INPUTS)
    task.teacher_predictions = torch.zeros(100, dtype=torch.int64)
    task.check_teacher({"top1": 0.19})  # so many of 100 come by chance less often than once in a hundred times
    with pytest.raises(ValueError, match=r"0\.170 on 100 images, chance is 0\.100.*--no-teacher-check"):
        task.check_teacher({"top1": 0.17})


def test_a_weak_teacher_of_many_images_is_better_than_chance():
    task = Classification(4, INPUTS)
    task.teacher_predictions = torch.zeros(2000, dtype=torch.int64)
    task.check_teacher({"top1": 0.35})
    assert tail(0, 10, 0.25) == pytest.approx(1)
