"""CrossKD: the student's head features go on through a part of the teacher's head."""

import copy

import pytest
import torch
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import generalized_box_iou_loss

from limbeck import Capture, Distiller, Layer, prepare_teacher
from limbeck.criteria import CrossKD
from limbeck.criteria.shared.boxes import generalised_iou
from limbeck.data.inputs import Inputs
from limbeck.methods.pairing import make_matches
from limbeck.models.model import Model
from limbeck.tasks.detection.deploy import decoded
from limbeck.tasks.detection.models import build_detector
from limbeck.training.preflight import preflight
from tests.criteria.contract import Rest
from tests.networks import convnet
from tests.tasks.detection.tiny import picture

CLASSES = ["a", "b"]
KINDS = ("retinanet", "fcos")


def built(head, seed=0):
    torch.manual_seed(seed)
    return build_detector(f"torchvision:{head}/timm:test_efficientnet", CLASSES)


@pytest.fixture(scope="module")
def models():
    return {kind: (built(kind, 0), built(kind, 1)) for kind in KINDS}


def levels(batch=2):
    torch.manual_seed(3)
    return [torch.randn(batch, 256, -(-128 // stride), -(-192 // stride)) for stride in (8, 16, 32, 64, 128)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_rest_of_a_head_gives_what_the_whole_head_gives(kind, models):
    model = models[kind][1]
    head, maps = model.module.head, levels()
    (towers, *_) = model.head.layers.values()
    with torch.no_grad():
        given = head(maps)
        start = 0
        for level in maps:
            cuts = [
                Capture(getattr(head, name), [Layer(layer.path.partition(f"{name}.")[2], input=True)])([level])[1]
                for layer, name in zip(towers, ("classification_head", "regression_head"), strict=True)
            ]
            logits, boxes = model.head.rest(*(next(iter(each.values())) for each in cuts))
            end = start + logits.shape[1]
            torch.testing.assert_close(logits, given["cls_logits"][:, start:end])
            anchor = torch.tensor([[-0.5, -0.5, 0.5, 0.5]]).expand(end - start, 4)
            torch.testing.assert_close(
                boxes, decoded(model.module.box_coder, given["bbox_regression"][:, start:end], anchor)
            )
            start = end


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_overlap_alike_whatever_their_anchor(kind, models):
    network = models[kind][0].module
    maps = levels()
    images = ImageList(torch.zeros(2, 3, 128, 192), [(128, 192)] * 2)
    anchors = network.anchor_generator(images, maps)[0].double()[::7]
    one, other = torch.rand(2, 2, len(anchors), 4, dtype=torch.float64)
    by_anchor = [decoded(network.box_coder, each, anchors) for each in (one, other)]
    unit = anchors.new_tensor([[-0.5, -0.5, 0.5, 0.5]]).expand(len(anchors), 4)
    by_unit = [decoded(network.box_coder, each, unit) for each in (one, other)]
    expected = 1 - generalized_box_iou_loss(*by_anchor)
    torch.testing.assert_close(generalised_iou(*by_unit), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("student", "teacher"), [("retinanet", "fcos"), ("fcos", "retinanet")])
def test_the_students_towers_are_trained_through_a_teachers_head_that_stays(student, teacher, models):
    pair = copy.deepcopy(models[student][0]), copy.deepcopy(models[teacher][1])
    (match,) = make_matches("CrossKD", *pair, strides=(8, 16), weight=1.0)
    assert str(match) == "CrossKD"
    assert [layer.run for layer in match.student] == [0, 0, 1, 1]
    images, targets = picture()
    before = copy.deepcopy(pair[1].module.state_dict())
    prepared = prepare_teacher(pair[1].module, match.teacher, example=(images,))
    distiller = Distiller(
        pair[0].module, prepared, [match], example=(images, targets), teacher_inputs=(images,)
    ).train()
    own = len(pair[0].module.state_dict())
    assert len(distiller.state_dict()) == own, "nothing of the teacher is saved"
    assert not list(match.parameters())
    (row,) = preflight(distiller, (images, targets), teacher_inputs=(images,))
    assert "input/8 (256, 12, 16)" in row.student
    distiller(images, targets, teacher_inputs=(images,)).loss.backward()
    for layer in match.student:
        tower = pair[0].module.get_submodule(layer.path.partition(".conv.")[0])
        assert any(weight.grad is not None and weight.grad.any() for weight in tower.parameters())
    for last in (pair[0].module.head.classification_head.cls_logits, pair[0].module.head.regression_head.bbox_reg):
        assert last.weight.grad is None, "behind the cut the student's own head has no part"
    after = pair[1].module.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(weight.grad is None for weight in pair[1].module.parameters())


def test_a_student_that_is_the_teacher_has_nearly_nothing_to_learn(models):
    teacher = models["retinanet"][1]
    student = copy.deepcopy(teacher)
    values = []
    images, _ = picture()
    for one in (student, models["retinanet"][0]):
        (match,) = make_matches("CrossKD", one, teacher, strides=(8, 16), weight=1.0)
        network = one.module.eval()
        distiller = Distiller(network, teacher.module, [match], example=(images,), teacher_inputs=(images,))
        values.append(distiller(images, teacher_inputs=(images,)).loss.item())
    assert values[0] < 1e-4 < values[1]


def test_a_wider_teacher_gets_a_trained_convolution_for_each_tower():
    student, teacher = (tuple(torch.rand(2, width, 3, 4) for _ in range(4)) for width in (3, 4))
    criterion = CrossKD(Rest())
    criterion.build(student, teacher)
    assert [each.weight.shape for each in criterion.projectors] == [(4, 3, 1, 1)] * 2
    criterion(student, teacher).backward()
    assert all(weight.grad.any() for weight in criterion.projectors.parameters() if weight.ndim > 1)
    with pytest.raises(ValueError, match=r"CrossKD takes two maps of each level, .* not 3 and 4"):
        CrossKD(Rest()).build(student[:3], teacher)


def test_the_frozen_rest_is_moved_and_copied_with_the_criterion(models):
    criterion = CrossKD(models["retinanet"][1].head.rest)
    twin = copy.deepcopy(criterion).double()
    assert not twin.state_dict()
    assert {weight.dtype for weight in twin.rest.module.parameters()} == {torch.float64}
    assert {weight.dtype for weight in criterion.rest.module.parameters()} == {torch.float32}
    assert not twin.train().rest.module.training


@pytest.mark.parametrize("head", ["fasterrcnn", "ssdlite"])
def test_other_heads_are_refused_with_what_is_possible(head, models):
    for pair, role in (((built(head), models["fcos"][1]), "student"), ((models["fcos"][0], built(head)), "teacher")):
        with pytest.raises(ValueError, match=rf"the {role}, a \w+, does not have; ChannelTransform, CWD, .* compare"):
            make_matches("CrossKD", *pair)


def test_a_classifier_is_refused_and_so_is_what_says_where_to_read(models):
    classifier = Model(convnet(4), Inputs(32), CLASSES)
    with pytest.raises(
        ValueError, match=r"CrossKD compares what is predicted by the head of a RetinaNet or FCOS .* the student"
    ):
        make_matches("CrossKD", classifier, classifier)
    for option, given in (("layers", "levels"), ("projector", "conv1x1"), ("reduction", "sum")):
        with pytest.raises(ValueError, match=f"leave out what you said of {option}"):
            make_matches("CrossKD", *models["fcos"], **{option: given})
    with pytest.raises(ValueError, match="leave out what you said of layers"):
        make_matches("CrossKD", *models["fcos"], student_layers=("head",), teacher_layers=("head",))
    with pytest.raises(ValueError, match="CrossKD has no option 'rest'"):
        make_matches("CrossKD:rest=1", *models["fcos"])
