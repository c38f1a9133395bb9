"""Matches between the levels of two detectors' pyramids."""

import copy

import pytest
import timm
import torch
from torch import nn

from limbeck import Capture, Distiller, EarlyDecay, Layer, Match, conv1x1, prepare_teacher
from limbeck.core.projectors import conv1x1_if_needed, conv_bn_relu_if_positive, tokens_to_map
from limbeck.criteria import CWD, ChannelTransform
from limbeck.data.inputs import Inputs
from limbeck.methods.pairing import make_matches
from limbeck.models.model import Model
from limbeck.tasks.detection.pyramids import levels_of_backbone
from limbeck.training.preflight import preflight
from tests.networks import randomize_norms
from tests.tasks.detection.tiny import detector, model_of, picture

NAMES = ("ChannelTransform", "CWD", "FGD", "MGD", "PKD")
COMMON = (8, 16, 32)
BOXES = [torch.tensor([[0.3, 0.25, 0.7, 0.75]])]


@pytest.fixture(scope="module")
def one_stage():
    return detector("retinanet", seed=1).eval()


@pytest.fixture(scope="module")
def two_stage():
    return randomize_norms(detector("fasterrcnn", "test_resnet", seed=2))


@pytest.fixture(scope="module")
def matches_of(one_stage, two_stage):
    sides = model_of(one_stage), model_of(two_stage)
    return lambda method, **options: make_matches(method, *sides, **options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layers", [None, "levels"])
def test_a_method_pairs_equal_strides_of_a_one_and_a_two_stage_detector(matches_of, name, layers):
    matches = matches_of(name, layers=layers)
    assert list(map(str, matches)) == [f"{name}:backbone/{stride}" for stride in COMMON]
    pairs = [(match.student[0].read, match.teacher[0].read) for match in matches]
    assert [(here.name, there.name) for here, there in pairs] == [("0", "1"), ("1", "2"), ("2", "3")]
    assert all(match.student[0].label == match.teacher[0].label for match in matches)
    assert len({id(match.criterion) for match in matches}) == 3


def test_only_the_common_levels_of_one_stage_detectors_are_paired(one_stage):
    matches = make_matches("PKD", model_of(one_stage), model_of(one_stage))
    assert [str(match).partition("/")[2] for match in matches] == ["8", "16", "32", "64", "128"]


def test_mgd_masks_positions_of_pyramids_unless_it_is_told_otherwise(matches_of):
    def of(method, **options):
        criterion = matches_of(method, **options)[0].criterion
        return criterion.masked, criterion.over

    assert of("MGD") == (0.65, "positions")
    assert of("MGD:masked=0.45") == (0.45, "positions")
    assert of("MGD:over=channels") == (0.65, "channels")
    assert of("MGD", layers="stages") == (0.15, "channels"), "as for maps of classifiers"


def test_levels_have_no_projector_that_ends_in_a_relu(matches_of):
    assert {match.make_projector for match in matches_of("CWD")} == {conv1x1_if_needed}
    assert {match.make_projector for match in matches_of("CWD", layers="stages")} == {conv_bn_relu_if_positive}
    assert {match.make_projector for match in matches_of("CWD", projector="conv1x1")} == {conv1x1}
    assert {match.make_projector for match in matches_of("ChannelTransform")} == {None}


def test_pyramids_without_a_common_stride_are_refused(one_stage, two_stage):
    student, teacher = model_of(one_stage), model_of(two_stage)
    teacher.levels.pop(8), teacher.levels.pop(16), teacher.levels.pop(32)
    with pytest.raises(
        ValueError, match=r"student has levels at the strides \[8, 16, 32, 64, 128\], the teacher at \[4\]"
    ):
        make_matches("PKD", student, teacher)
    classifier = Model(timm.create_model("test_resnet"), Inputs(64), ["a", "b"])
    with pytest.raises(
        ValueError, match=r"the teacher at \[\]: none in common; name .*--student-layer and --teacher-l"
    ):
        make_matches("PKD", student, classifier)


@pytest.mark.parametrize("name", ["KD", "DKD", "DIST"])
def test_methods_of_class_scores_are_refused_in_words(matches_of, name):
    with pytest.raises(
        ValueError, match=rf"{name} compares class scores, of which each detector has its own kind; Chann"
    ):
        matches_of(name)


@pytest.mark.parametrize(("name", "reads"), [("OFD", "stages-before-activation"), ("ReviewKD", "stages-together")])
def test_methods_of_other_stages_are_refused_in_words(matches_of, name, reads):
    with pytest.raises(ValueError, match=rf"{name} reads {reads}, which pyramids do not have; pass --layers {reads} "):
        matches_of(name)


def test_stages_are_read_in_the_backbones(matches_of, one_stage, two_stage):
    matches = matches_of("ChannelTransform", layers="stages")
    assert len(matches) == 4
    for model, sides in (
        (one_stage, [each.student for each in matches]),
        (two_stage, [each.teacher for each in matches]),
    ):
        layers = [layer for (layer,) in sides]
        assert all(layer.path.startswith("backbone.body") for layer in layers)
        _, features = Capture(model, layers)([torch.rand(3, 64, 64)])
        assert [feature.shape[-1] for feature in features.values()] == [16, 8, 4, 2]
    assert len(matches_of("AttentionTransfer", layers="stages")) == 4
    assert len(matches_of("ReviewKD", layers="stages-together")) == 1


def test_a_method_of_stages_reads_the_levels_of_detectors(matches_of):
    assert list(map(str, matches_of("AttentionTransfer"))) == [f"AttentionTransfer:backbone/{each}" for each in COMMON]


def test_named_layers_win_over_levels(one_stage, two_stage):
    layers = {"student_layers": ["backbone.body.blocks.2"], "teacher_layers": ["backbone.body.layer2"]}
    student, teacher = model_of(one_stage), model_of(two_stage)
    (match,) = make_matches("MGD", student, teacher, **layers)
    assert (match.student, match.teacher) == ((Layer("backbone.body.blocks.2"),), (Layer("backbone.body.layer2"),))
    assert match.criterion.over == "channels"
    with pytest.raises(ValueError, match=r"layers are named one by one, or by --layers levels, not both"):
        make_matches("MGD", student, teacher, layers="levels", **layers)


def test_a_weight_is_shared_by_the_sum_or_equally(matches_of):
    def weights(**options):
        return [match.weight for match in matches_of("PKD", **options)]

    assert weights(weight=3.0) == weights(weight=3.0, reduction="sum") == [3, 3, 3]
    assert weights(weight=3.0, reduction="equal") == [3, 3 * 4, 3 * 16]
    assert weights(weight=3, reduction="equal") == weights(weight="3", reduction="equal") == [3, 12, 48]
    own = [match.weight for match in matches_of("ChannelDistillation", reduction="equal")]
    assert own == [6, 4 * 6, 16 * 6]


@pytest.mark.parametrize("options", [{}, {"weight": "auto"}, {"weight": "EarlyDecay:weight=6"}, {"layers": "stages"}])
def test_only_a_number_can_be_shared_and_only_by_levels(matches_of, options):
    if "layers" in options:
        options = {**options, "weight": 2.0}
    with pytest.raises(ValueError, match=r"--reduction equal is of a weight that is a number, shared by the levels"):
        matches_of("CWD", reduction="equal", **options)


def test_each_level_follows_a_schedule_of_its_own(matches_of):
    assert [match.schedule for match in matches_of("CWD", weight="EarlyDecay:weight=6")] == [EarlyDecay(6)] * 3


@pytest.mark.parametrize("name", NAMES)
def test_a_method_distils_the_levels_of_a_one_stage_student_from_a_two_stage_teacher(two_stage, name):
    student, pictures = detector(seed=1), picture()
    matches = make_matches(name, model_of(student), model_of(two_stage))
    teacher = copy.deepcopy(two_stage)
    given = {"truth": BOXES, "teacher_inputs": pictures[:1]}
    distiller = Distiller(student, teacher, matches, example=pictures, **given)
    rows = preflight(distiller, pictures, **given)
    assert [row.match for row in rows] == [f"{name}:backbone/{stride}" for stride in COMMON]
    assert all(row.value > 0 for row in rows)


def test_fgd_needs_the_boxes_and_weighs_by_them(one_stage, two_stage):
    pictures = picture()
    pair = copy.deepcopy(one_stage), copy.deepcopy(two_stage)
    matches = make_matches("FGD", *map(model_of, pair), weight=1.0)
    with pytest.raises(ValueError, match=r"FGD:backbone/8 needs the ground truth \(the boxes of each image\)"):
        Distiller(*pair, matches, example=pictures, teacher_inputs=pictures[:1])
    distiller = Distiller(*pair, matches, example=pictures, truth=BOXES, teacher_inputs=pictures[:1]).eval()
    with torch.no_grad():
        here, elsewhere = (
            distiller(*pictures, truth=boxes, teacher_inputs=pictures[:1]).loss
            for boxes in (BOXES, [torch.tensor([[0.0, 0.0, 0.1, 0.1]])])
        )
    assert abs(here - elsewhere) > 1e-4 * here


class Raises(nn.Module):
    """A head that must not run."""

    def forward(self, *args):
        raise AssertionError("the teacher's head ran")


def test_a_detector_is_trained_beside_a_teacher_that_ends_with_its_pyramid(two_stage):
    student, pictures = detector(seed=1), picture()
    plain = copy.deepcopy(two_stage)
    matches = make_matches("ChannelTransform", model_of(student), model_of(plain), weight=1e-4)
    layers = [layer for match in matches for layer in match.teacher]
    teacher = prepare_teacher(plain, layers, example=pictures[:1])
    norms = [path for path, each in teacher.model.named_modules() if isinstance(each, nn.BatchNorm2d)]
    assert norms == ["backbone.body.bn1"], "14 are folded; this one follows a sequence, not a convolution"
    teacher.model.rpn = Raises()
    teacher.model.roi_heads = Raises()
    distiller = Distiller(student, teacher, matches, example=pictures, teacher_inputs=pictures[:1]).train()

    _, expected = Capture(plain.eval(), layers)(*pictures[:1])
    found = teacher(*pictures[:1])
    for layer in layers:
        torch.testing.assert_close(found[layer], expected[layer].detach(), rtol=1e-3, atol=1e-4)

    before = [{key: value.clone() for key, value in model.state_dict().items()} for model in (student, teacher.model)]
    optimizer = torch.optim.SGD(distiller.parameters(), 1e-3)
    out = distiller(*pictures, teacher_inputs=pictures[:1])
    assert set(out.output) == {"classification", "bbox_regression"}
    assert set(out.losses) == {f"ChannelTransform:backbone/{stride}" for stride in COMMON}
    (sum(out.output.values()) + out.loss).backward()
    optimizer.step()
    assert all(torch.equal(value, before[1][key]) for key, value in teacher.model.state_dict().items())
    changed = {key for key, value in student.state_dict().items() if not torch.equal(value, before[0][key])}
    assert {key for key in before[0] if "backbone.body." in key or key.startswith("head.")} <= changed


def test_what_is_distilled_reaches_backbone_and_neck_but_no_head(two_stage):
    student, pictures = detector(seed=1), picture()
    matches = make_matches("CWD", model_of(student), model_of(two_stage), weight=1.0)
    given = {"example": pictures, "teacher_inputs": pictures[:1]}
    distiller = Distiller(student, copy.deepcopy(two_stage), matches, **given).train()
    distiller(*pictures, teacher_inputs=pictures[:1]).loss.backward()
    reached = {name for name, each in student.named_parameters() if each.grad is not None and each.grad.any()}
    assert {name.split(".")[0] for name in reached} == {"backbone"}
    assert "backbone.body.conv_stem.weight" in reached
    assert "backbone.fpn.layer_blocks.2.0.weight" in reached


def test_auto_weighs_each_level_by_its_own_gradients(two_stage):
    student, pictures = detector(seed=1), picture(64, 64)
    student.backbone.freeze_norms()
    matches = make_matches("PKD", model_of(student), model_of(two_stage))
    distiller = Distiller(student, copy.deepcopy(two_stage), matches, example=pictures, teacher_inputs=pictures[:1])
    for _ in range(9):
        out = distiller.train()(*pictures, teacher_inputs=pictures[:1])
        (sum(out.output.values()) + out.loss).backward()
    weights = [match.weight for match in distiller.matches]
    output, features = Capture(student, [match.student[0] for match in matches])(*pictures)
    target = distiller.teacher(*pictures[:1])
    task = torch.autograd.grad(sum(output.values()), list(features.values()), retain_graph=True)
    for weight, match, feature, own in zip(weights, matches, features.values(), task, strict=True):
        (gradient,) = torch.autograd.grad(match(feature, target[match.teacher[0]]), feature, retain_graph=True)
        assert weight == pytest.approx(0.5 * (own.norm() / gradient.norm()).item(), rel=1e-3)


def test_a_convolutional_student_follows_a_plain_transformer(one_stage):
    student, teacher, pictures = copy.deepcopy(one_stage), detector("fasterrcnn", "test_vit", seed=3), picture(96, 160)
    matches = make_matches("ChannelTransform", model_of(student), model_of(teacher), weight=1e-4)
    assert [match.student[0].label for match in matches] == [f"/{stride}" for stride in COMMON]
    distiller = Distiller(student, teacher, matches, example=pictures, teacher_inputs=pictures[:1]).train()
    out = distiller(*pictures, teacher_inputs=pictures[:1])
    (sum(out.output.values()) + out.loss).backward()
    assert all(value > 0 for value in out.losses.values())
    assert student.backbone.body.conv_stem.weight.grad.any()


def test_a_level_follows_the_tokens_of_a_classifier_at_its_grid():
    student, teacher, pictures = detector(seed=1), timm.create_model("test_vit").eval(), picture(64, 64)
    tokens = Layer("norm", tokens_to_map(prefix=1))
    match = Match(levels_of_backbone(student)[8], tokens, ChannelTransform(), weight=1e-3)
    resized = torch.nn.functional.interpolate(torch.stack(pictures[0]), (160, 160))
    distiller = Distiller(student, teacher, [match], example=pictures, teacher_inputs=(resized,)).train()
    (level,) = (feature for feature in Capture(student, match.student)(*pictures)[1].values())
    assert level.shape == (1, 256, 8, 8)
    assert distiller.teacher(resized)[tokens].shape == (1, 64, 10, 10)
    arranged, target = match._arrange(level, distiller.teacher(resized)[tokens])
    assert arranged.shape == (1, 256, *target.shape[2:])
    out = distiller(*pictures, teacher_inputs=(resized,))
    out.loss.backward()
    assert out.loss > 0
    assert student.backbone.fpn.layer_blocks[0][0].weight.grad.any()
    assert student.backbone.body.conv_stem.weight.grad.any()


def test_projectors_are_built_only_where_channels_differ(two_stage):
    student, pictures = detector(seed=1), picture(64, 64)
    vit = timm.create_model("test_vit").eval()
    wide = Match(levels_of_backbone(student)[16], Layer("norm", tokens_to_map(1)), CWD(), projector=conv1x1_if_needed)
    equal = Match(
        levels_of_backbone(student)[16], levels_of_backbone(two_stage)[16], CWD(), projector=conv1x1_if_needed
    )
    resized = torch.rand(1, 3, 160, 160)
    Distiller(student, vit, [wide], example=pictures, teacher_inputs=(resized,))
    Distiller(student, copy.deepcopy(two_stage), [equal], example=pictures, teacher_inputs=pictures[:1])
    assert isinstance(equal.projector, nn.Identity)
    assert wide.projector.weight.shape == (64, 256, 1, 1)
