from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from limbeck.data.inputs import Inputs
from limbeck.tasks.semantic.classes import Labels, meaning_of
from limbeck.tasks.semantic.dataset import Masks
from limbeck.tasks.semantic.options import balanced
from limbeck.tasks.semantic.places import at_size, logits_at, logits_of
from limbeck.tasks.semantic.task import Semantic, dice_loss, predict

CLASSES = ["road", "car", "sky", "tree"]
PLAIN = Inputs(1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
EIGHTS = Inputs(1, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), multiple=8)


class Says(nn.Module):
    """A model of maps at 1/stride of the image, that reads the class of each pixel from its red."""

    def __init__(self, multiple=1, stride=1):
        super().__init__()
        self.multiple, self.stride = multiple, stride
        self.score = nn.Parameter(torch.ones(()))
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape[-2:]))
        if any(side % self.multiple for side in images.shape[-2:]):
            raise RuntimeError(f"not divisible by {self.multiple}")
        red = images[:, 0, :: self.stride, :: self.stride].mul(255).round()
        return (red[:, None] == torch.arange(len(CLASSES)).view(-1, 1, 1)).float() * self.score


class Output(OrderedDict):
    """What transformers returns: a mapping with its entries as attributes."""

    logits = property(lambda self: self["logits"])


def image_of(said):
    return said.to(torch.uint8)[:, None].expand(-1, 3, -1, -1)


def batch(said, mask):
    return {"image": image_of(torch.tensor([said])), "mask": torch.tensor([mask])}


def random_classes(*shape):
    return torch.randint(0, len(CLASSES), shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def scores():
    """Logits of two images."""
    return torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def mask():
    """Of the same, with ignored pixels and no tree."""
    mask = random_classes(2, 6, 8) % 3
    mask[0, :2] = mask[1, 3, 4:] = 255
    return mask


def cross_entropy(scores, mask):
    """A mean over the labelled pixels, one by one."""
    chosen = [
        scores[image, :, row, column].log_softmax(0)[mask[image, row, column]]
        for image, row, column in (mask != 255).nonzero().tolist()
    ]
    return -torch.stack(chosen).mean()


def without_loss(metrics):
    assert metrics["loss"] > 0
    return {name: value for name, value in metrics.items() if name != "loss"}


def test_intersection_over_union_is_what_one_counts_by_hand():
    metrics = Semantic(CLASSES, PLAIN).evaluate(
        Says(), [batch([[0, 1, 1, 1]], [[0, 0, 1, 1]]), batch([[1, 1, 3, 2]], [[1, 2, 255, 255]])]
    )
    expected = {"iou road": 1 / 2, "iou car": 3 / 5, "iou sky": 0.0}  # the tree is said of ignored pixels alone
    assert without_loss(metrics) == pytest.approx({"miou": 1.1 / 3, "pixel_accuracy": 4 / 6, **expected})
    assert next(iter(metrics)) == Semantic.metric == "miou"


def test_a_class_that_is_predicted_but_never_there_counts_as_nothing_right():
    metrics = Semantic(CLASSES, PLAIN).evaluate(Says(), [batch([[0, 0, 0, 3]], [[0, 0, 0, 0]])])
    expected = {"miou": 0.75 / 2, "pixel_accuracy": 0.75, "iou road": 0.75, "iou tree": 0.0}
    assert without_loss(metrics) == pytest.approx(expected)


def test_images_of_several_sizes_are_counted_by_pixels():
    batches = [batch([[0] * 6], [[0] * 6]), batch([[1], [1]], [[0], [1]])]
    metrics = Semantic(CLASSES, PLAIN).evaluate(Says(), batches)
    assert without_loss(metrics) == pytest.approx(
        {"miou": (6 / 7 + 1 / 2) / 2, "pixel_accuracy": 7 / 8, "iou road": 6 / 7, "iou car": 0.5}
    )


def test_the_validation_loss_is_a_mean_over_labelled_pixels_however_many_an_image_has():
    says, masks = [[[0, 1, 1, 1]], [[1, 2]], [[3, 3]]], [[[0, 0, 1, 255]], [[2, 255]], [[255, 255]]]
    batches = [batch(*pair) for pair in zip(says, masks, strict=True)]
    task = Semantic(CLASSES, PLAIN, dice=1.0, class_weights=torch.arange(4.0))
    expected = torch.cat([
        F.cross_entropy(Says()(each["image"] / 255).float(), each["mask"], ignore_index=255, reduction="none").flatten()
        for each in batches
    ]).sum() / 4  # fmt: skip
    assert task.evaluate(Says(), batches)["loss"] == pytest.approx(expected.item())


def test_masks_are_measured_at_their_own_size_by_a_model_that_wants_multiples():
    said = random_classes(2, 10, 12)
    full = said.repeat_interleave(2, 1).repeat_interleave(2, 2)
    model = Says(multiple=8)
    metrics = Semantic(CLASSES, EIGHTS).evaluate(model, [{"image": image_of(said), "mask": full}])
    assert model.shapes == [(16, 16)]
    assert (metrics["miou"], metrics["pixel_accuracy"]) == (1, 1)
    full[0, 0, 0] = (full[0, 0, 0] + 1) % 4
    wrong = Semantic(CLASSES, EIGHTS).evaluate(model, [{"image": image_of(said), "mask": full}])
    assert wrong["pixel_accuracy"] == pytest.approx(1 - 1 / full.numel())


@pytest.mark.parametrize("size", [(13, 21), (16, 24), (7, 40)])
def test_padding_changes_nothing_of_what_a_pointwise_model_predicts(size):
    said = random_classes(2, *size)
    plain, padded = Says(), Says(multiple=8)
    assert torch.equal(predict(padded, image_of(said), EIGHTS, size), said)
    assert torch.equal(predict(plain, image_of(said), PLAIN, size), said)
    assert plain.shapes == [size]
    assert padded.shapes == [tuple(-(-side // 8) * 8 for side in size)]


def test_maps_of_a_stride_stay_in_place_when_the_image_is_padded():
    said = random_classes(1, 5, 6).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(predict(Says(multiple=8, stride=2), image_of(said), EIGHTS, (10, 12)), said)


def test_a_model_is_evaluated_in_eval_mode_and_left_as_it_was():
    class Mode(Says):
        def forward(self, images):
            assert not self.training
            assert not torch.is_grad_enabled()
            return super().forward(images)

    model = Mode().train()
    Semantic(CLASSES, PLAIN).evaluate(model, [batch([[0, 1]], [[0, 1]])])
    assert model.training


def test_the_loss_is_the_cross_entropy_of_the_labelled_pixels(scores, mask):
    loss = Semantic(CLASSES, PLAIN).loss(scores, {"mask": mask})
    torch.testing.assert_close(loss, cross_entropy(scores, mask))
    torch.testing.assert_close(loss, F.cross_entropy(scores, mask, ignore_index=255))


def test_weights_of_the_classes_give_a_weighted_mean(scores, mask):
    weights = torch.tensor([0.2, 3.0, 1.0, 0.0])
    loss = Semantic(CLASSES, PLAIN, class_weights=weights).loss(scores, {"mask": mask})
    torch.testing.assert_close(loss, F.cross_entropy(scores, mask, weights, ignore_index=255))
    assert abs(loss - cross_entropy(scores, mask)) > 0.01


@pytest.mark.parametrize("dice", [0, 1])
def test_a_batch_without_a_labelled_pixel_has_no_loss_and_a_finite_gradient(scores, mask, dice):
    scores.requires_grad_()
    loss = Semantic(CLASSES, PLAIN, dice=dice).loss(
        {"out": scores, "aux": scores}, {"mask": torch.full_like(mask, 255)}
    )
    loss.backward()
    assert loss == 0
    assert torch.equal(scores.grad, torch.zeros_like(scores))


def test_ignored_pixels_have_no_gradient(scores, mask):
    scores.requires_grad_()
    Semantic(CLASSES, PLAIN, dice=1).loss(scores, {"mask": mask}).backward()
    assert torch.equal(scores.grad.abs().sum(1) > 0, mask != 255)


def test_the_loss_of_an_auxiliary_head_is_added_with_its_weight(scores, mask):
    output = {"out": scores, "aux": scores.flip(1)}
    main, aside = cross_entropy(scores, mask), cross_entropy(scores.flip(1), mask)
    assert abs(main - aside) > 0.01
    torch.testing.assert_close(Semantic(CLASSES, PLAIN).loss(output, {"mask": mask}), main + 0.4 * aside)
    torch.testing.assert_close(Semantic(CLASSES, PLAIN, auxiliary=2).loss(output, {"mask": mask}), main + 2 * aside)
    torch.testing.assert_close(Semantic(CLASSES, PLAIN, auxiliary=0).loss(output, {"mask": mask}), main)


def dice_by_hand(scores, mask):
    """One minus 2 |A and B| / (|A| + |B|) over the labelled pixels; 0 for a class that is not there."""
    labelled = mask != 255
    losses = []
    for index, share in enumerate(scores.softmax(1).unbind(1)):
        said, there = share[labelled], (mask[labelled] == index).float()
        losses.append((1 - 2 * (said * there).sum() / (said.sum() + there.sum())) * there.any())
    return torch.stack(losses).mean()


def test_the_dice_loss_is_what_one_counts_by_hand(scores, mask):
    expected = dice_by_hand(scores, mask)
    assert expected > 0.1
    torch.testing.assert_close(dice_loss(scores, mask), expected)
    loss = Semantic(CLASSES, PLAIN, dice=0.5).loss(scores, {"mask": mask})
    torch.testing.assert_close(loss, cross_entropy(scores, mask) + 0.5 * expected)


def test_smaller_logits_are_brought_to_the_size_of_the_mask(scores, mask):
    small = scores[..., ::2, ::2]
    resized = F.interpolate(small, (6, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        Semantic(CLASSES, PLAIN).loss({"out": small, "aux": small[..., ::3]}, {"mask": mask}),
        cross_entropy(resized, mask) + 0.4 * cross_entropy(at_size(small[..., ::3], (6, 8)), mask),
    )
    torch.testing.assert_close(logits_at({"out": small}, (6, 8)), resized)
    assert at_size(scores, [6, 8]) is scores


def test_the_loss_of_half_precision_logits_is_in_float32(scores, mask):
    loss = Semantic(CLASSES, PLAIN, dice=1).loss(scores.bfloat16(), {"mask": mask})
    rounded = scores.bfloat16().float()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(rounded, mask) + dice_by_hand(rounded, mask))


def test_logits_are_found_in_what_segmenters_return(scores):
    assert logits_of(scores) is scores
    assert logits_of({"aux": None, "out": scores}) is scores
    assert logits_of(Output(logits=scores, loss=None)) is scores
    for other in ([scores], {"aux": scores}, None):
        with pytest.raises(TypeError, match=rf"a segmenter returns logits .*not {type(other).__name__}"):
            logits_of(other)


def test_the_truth_is_negative_where_there_is_none(mask):
    truth = Semantic(CLASSES, PLAIN).truth({"mask": mask})
    assert torch.equal(truth == -1, mask == 255)
    assert torch.equal(truth[truth >= 0], mask[mask != 255])
    assert truth.dtype == torch.int64


def test_student_and_teacher_get_their_own_normalisation():
    images = {"image": torch.full((1, 3, 2, 2), 51, dtype=torch.uint8)}
    task = Semantic(CLASSES, Inputs(1, (0.0, 0.1, 0.2), (0.1, 0.1, 0.2)), PLAIN)
    torch.testing.assert_close(task.inputs(images)[0][0, :, 1, 1], torch.tensor([2.0, 1.0, 0.0]))
    torch.testing.assert_close(task.teacher_inputs(images)[0], torch.full((1, 3, 2, 2), 0.2))
    assert Semantic(CLASSES, PLAIN).teacher_inputs(images) is None


def test_student_and_teacher_are_measured_with_their_own_normalisation_and_multiple():
    shifted = Inputs(1, mean=(-1 / 255, 0.0, 0.0), std=(1.0, 1.0, 1.0), multiple=8)  # so that each class is the next
    task = Semantic(CLASSES, PLAIN, shifted)
    student, teacher = Says(), Says(multiple=8)
    said, mask = [[0, 1, 2]], [[0, 1, 2]]
    assert task.evaluate(student, [batch(said, mask)])["pixel_accuracy"] == 1
    assert task.evaluate_teacher(teacher, [batch(said, mask)])["pixel_accuracy"] == 0
    assert (student.shapes, teacher.shapes) == ([(1, 3)], [(8, 8)])


def test_a_teacher_that_is_worse_than_one_class_everywhere_is_refused():
    task = Semantic(CLASSES, PLAIN)
    task.check_teacher({"miou": 0.26})
    with pytest.raises(ValueError, match=r"0\.240, less .*\(0\.250\).*normalisation.*--no-teacher-check"):
        task.check_teacher({"miou": 0.24})


def test_balanced_weights_are_the_inverse_roots_of_the_shares_of_labelled_pixels(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    pixels = torch.tensor([[[0] * 8], [[0] * 8], [[1] * 4 + [2] * 4], [[255] * 8]], dtype=torch.uint8)
    for path, part in zip(paths, pixels.view(2, 2, 8), strict=True):
        Image.fromarray(part.contiguous().numpy()).save(path)
    masks = Masks(paths, paths, Labels(CLASSES, meaning_of(dict(enumerate(CLASSES)), None)))
    torch.testing.assert_close(balanced(masks), torch.tensor([1.0, 2.0, 2.0, 0.0]) * 3 / 5)
