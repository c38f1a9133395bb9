import pytest
import torch
import torch.nn.functional as F

from limbeck.data.inputs import Inputs
from limbeck.tasks.classification.dataset import Images
from limbeck.tasks.classification.loss import LossOptions
from limbeck.tasks.classification.task import Classification

INPUTS = Inputs(8)


def test_a_mixed_image_counts_by_its_share_of_each_class():
    output = torch.randn(3, 4)
    target = torch.tensor([[0.7, 0.3, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    label = torch.tensor([0, 2, -1])  # the last one has none
    loss = Classification(4, INPUTS, label_smoothing=0.1, labelled_share=2 / 3).loss
    by_hand = -(0.9 * target + 0.1 / 4).mul(output.log_softmax(1))[:2].sum() / 2
    torch.testing.assert_close(loss(output, {"label": label, "target": target}), by_hand)


def test_classes_with_few_images_count_as_much_as_the_others():
    images = Images(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), [0, 0, 0, 1, -1], ["a", "b"])
    task = LossOptions(class_weights="balanced").task(images, INPUTS)
    assert task.class_weights.tolist() == pytest.approx([2 / 3, 2])
    output, label = torch.randn(5, 2), torch.tensor([0, 0, 0, 1, -1])
    each = F.cross_entropy(output[:4], label[:4], reduction="none")
    by_class = (each[:3].mean() + each[3]) / 2
    torch.testing.assert_close(task.loss(output, {"label": label}), by_class)


def test_a_smoothing_of_all_or_less_than_nothing_is_refused():
    for wrong in (1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="label_smoothing"):
            LossOptions(label_smoothing=wrong)
