"""Laws of the criteria for transformers and across architectures: ViTKD, DeiT and OFAKD."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.criteria import OFAKD, DeiT, ViTKD

N = torch.arange(15, dtype=torch.float64).view(3, 5)
STUDENT, TEACHER = torch.sin(1.1 * N), 2 * torch.cos(0.9 * N)
LABELS = torch.tensor([0, 1, 1])


# --- ViTKD ---


def generated(masked=0.5, training=True, size=(6, 6)):
    """Where a ViTKD that generates ones from anything has a gradient at the last feature's positions (B, H, W)."""
    made, teacher = torch.randn(4, 3, *size, requires_grad=True), torch.zeros(4, 3, *size)
    criterion = ViTKD(0, 1, masked)
    criterion.build((made,) * 3, (teacher,) * 3)
    criterion.train(training).generator = Keep()
    criterion((made,) * 3, (teacher,) * 3)
    return criterion.generator.given


class Keep(nn.Module):
    """Notes where it is given the masking token, which is 0."""

    def forward(self, feature):
        self.given = (feature == 0).all(1)
        return feature


@pytest.mark.parametrize("training", [True, False])
def test_vitkd_masks_as_many_positions_of_every_image(training):
    torch.manual_seed(0)
    for masked, count in ((0.5, 18), (0.25, 9), (0.9, 33)):
        assert generated(masked, training).sum((1, 2)).tolist() == [count] * 4


def test_vitkd_masks_anew_in_training_and_always_the_same_in_eval_mode():
    torch.manual_seed(0)
    first = generated()
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, generated())
    first = generated(training=False)
    assert torch.equal(first, generated(training=False))
    assert first.sum(1).max() < 6  # spread over the map
    assert first.sum(1).min() > 0


def test_vitkd_counts_what_is_generated_at_masked_positions_alone():
    feature, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    criterion = ViTKD(0, 1).eval()
    criterion.build((feature,) * 3, (teacher,) * 3)
    value = criterion((feature,) * 3, (teacher,) * 3)
    masked = 1 - criterion._kept(feature)
    torch.testing.assert_close(criterion((feature,) * 3, (teacher + 5 * (1 - masked),) * 3), value)
    assert criterion((feature,) * 3, (teacher + 5 * masked,) * 3) > value


def test_vitkd_maps_only_other_widths_and_meets_on_the_teachers_grid():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 6, 6)
    criterion = ViTKD()
    criterion.build((student,) * 3, (teacher,) * 3)
    assert [tuple(each.weight.shape[:2]) for each in criterion.aligned] == [(5, 3)] * 3
    assert criterion((student,) * 3, (teacher,) * 3) > 0
    same = ViTKD()
    same.build((teacher,) * 3, (teacher,) * 3)
    assert not list(same.aligned.parameters())


def test_vitkd_refuses_anything_but_three_maps_and_a_share_that_masks_nothing():
    feature = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"ViTKD takes three layers of each model.* not 1"):
        ViTKD().build(feature, feature)
    with pytest.raises(ValueError, match=r"ViTKD takes three layers of each model.* not 2"):
        ViTKD().build((feature,) * 2, (feature,) * 2)
    with pytest.raises(ValueError, match="read tokens as a map"):
        ViTKD().build((feature[..., 0],) * 3, (feature,) * 3)
    with pytest.raises(ValueError, match="masked is 0; it is a share between 0 and 1"):
        ViTKD(masked=0)


# --- DeiT ---


def test_deit_asks_only_for_the_class_that_the_teacher_says():
    value = DeiT()(STUDENT, TEACHER)
    torch.testing.assert_close(value, F.cross_entropy(STUDENT, TEACHER.argmax(1)))
    torch.testing.assert_close(DeiT()(STUDENT, 3 * TEACHER - 1), value)


# --- OFAKD ---


def test_ofa_kd_is_cross_entropy_at_an_exponent_of_one_and_counts_the_true_class_more_above():
    value = OFAKD()(STUDENT, TEACHER, LABELS)
    torch.testing.assert_close(value, F.cross_entropy(STUDENT, TEACHER.softmax(1)))
    student = STUDENT.clone().requires_grad_()
    shares = []
    for exponent in (1.0, 1.5, 2.0):
        (gradient,) = torch.autograd.grad(OFAKD(exponent)(student, TEACHER, LABELS), student)
        assert gradient.sum(1).abs().max() < 1e-12
        shares.append(gradient.gather(1, LABELS[:, None]).sum().item())
    assert shares == sorted(shares, reverse=True)


def test_ofa_kd_enhances_nothing_of_an_image_without_a_label():
    unlabelled = torch.tensor([0, -1, 1])
    images = [OFAKD(2.0)(STUDENT[i : i + 1], TEACHER[i : i + 1], unlabelled[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(OFAKD(2.0)(STUDENT, TEACHER, unlabelled), torch.stack(images).mean())
    plain = -(TEACHER[1].softmax(0) ** 2 * STUDENT[1].log_softmax(0)).sum()
    torch.testing.assert_close(images[1], plain)


def exit_for(feature, **options):
    criterion = OFAKD(**options)
    criterion.build(feature, torch.randn(len(feature), 5))
    return criterion.eval()


def test_an_exit_halves_a_map_as_often_as_stages_follow():
    convolutions = [exit_for(torch.randn(2, 4, 32, 32), stage=stage).project for stage in (1, 2, 3, 4)]
    sizes = [steps[:-3](torch.randn(2, 4, 32, 32)).shape[1:] for steps in convolutions]
    assert sizes == [(32, 4, 4), (16, 8, 8), (8, 16, 16), (4, 32, 32)]


def test_an_exit_of_tokens_merges_patches_and_reads_the_class_token_where_there_is_one():
    tokens = torch.randn(2, 1 + 28 * 28, 8)
    with_class, without = exit_for(tokens).project, exit_for(tokens[:, 1:]).project
    assert [len(each.merge) for each in (with_class, without, exit_for(tokens[:, : 1 + 15 * 15]).project)] == [2, 2, 0]
    assert with_class.merge(tokens[:, 1:]).shape == (2, 49, 8)
    with_class.blocks = without.blocks = nn.Identity()
    torch.testing.assert_close(with_class(tokens), with_class.head(tokens[:, 0]))
    torch.testing.assert_close(without(tokens[:, 1:]), without.head(without.merge(tokens[:, 1:]).mean(1)))
    assert exit_for(torch.randn(2, 14 * 28, 8), grid=(14, 28)).project.merge(torch.randn(2, 392, 8)).shape == (2, 98, 8)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((2, 4, 6, 6), (2, 5, 6, 6), r"with class scores of images \(B, K\); student has .* ChannelTransform compares"),
        ((2, 4), (2, 5), "compares a map, tokens or logits of the student"),
        ((2, 17, 6), (2, 5), r"tokens \(2, 17, 6\) do not fill a grid of 4x4 patches, or their width is no multiple"),
    ],
)
def test_ofa_kd_refuses_what_has_no_exit_or_no_scores_to_follow(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        OFAKD().build(torch.randn(student), torch.randn(teacher))


def test_a_stage_beyond_the_four_is_refused():
    with pytest.raises(ValueError, match="stage is 5; it is 1, 2, 3 or 4"):
        OFAKD(stage=5)
