import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limbeck.models import checkpoints as models
from limbeck.tasks.detection.checkpoints import COCO, load_detector
from tests.tasks.detection.tiny import detector, model_of, picture

CLASSES = ["dog", "person", "hair drier"]  # ids 18, 1 and 89 of COCO
PLACES = [0, *(COCO.index(name) for name in CLASSES)]
NAME = "torchvision:HEAD/timm:BACKBONE"


def published(head):
    """The tensors of a detector as torchvision publishes them: an output for each id, norms that are frozen."""
    model = detector(head, classes=len(COCO) - 1)
    for parameter in model.parameters():
        if len(parameter) % len(COCO) == 0:  # of classes, which are all alike in a fresh model
            nn.init.normal_(parameter, std=0.1)
    return model, {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}


def scores_by_class(model, images):
    """What a detector says of the classes (..., classes), and of their boxes (..., classes, 4) and masks if it does."""
    batch = torch.stack(images)
    levels = model.eval().backbone(batch)
    if not hasattr(model, "roi_heads"):
        return [model.head(list(levels.values()))["cls_logits"]]
    boxes = [torch.tensor([[0.0, 0, 96, 64], [20, 30, 60, 90]])]
    sizes = [tuple(image.shape[1:]) for image in images]
    heads = model.roi_heads
    classes, places = heads.box_predictor(heads.box_head(heads.box_roi_pool(levels, boxes, sizes)))
    said = [classes, places.unflatten(1, (-1, 4)).transpose(1, 2)]
    if heads.mask_predictor is not None:
        masks = heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(levels, boxes, sizes)))
        said.append(masks.movedim(1, -1))
    return said


@pytest.mark.parametrize("head", ["fasterrcnn", "maskrcnn", "retinanet", "fcos", "ssdlite"])
@torch.no_grad()
def test_a_detector_of_all_ids_of_coco_says_the_same_of_the_classes_that_the_data_has(head, tmp_path):
    plain, state = published(head)
    save_file(state, tmp_path / "coco.safetensors")
    model = detector(head, classes=3, seed=1)
    (note,) = load_detector(model_of(model, CLASSES), str(tmp_path / "coco.safetensors"), name=NAME)
    assert note.endswith("coco.safetensors: of its outputs for COCO's categories, those named as the 3 classes")
    images, _ = picture()
    for whole, chosen in zip(scores_by_class(plain, images), scores_by_class(model, images), strict=True):
        assert whole.shape[-1] == len(COCO)
        torch.testing.assert_close(whole[..., PLACES], chosen)


def test_outputs_of_other_classes_are_left_out_of_what_is_trained(tmp_path):
    state = published("fasterrcnn")[1]
    torch.save(state, tmp_path / "coco.pth")
    model = detector("fasterrcnn", seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    classes = ["red cell", "platelet"]
    (note,) = load_detector(model_of(model, classes), str(tmp_path / "coco.pth"), name=NAME, new_head=True)
    predictor = "roi_heads.box_predictor"
    assert note.endswith(f"is of 90 classes, not 2: {predictor}.bbox_pred, {predictor}.cls_score start fresh")
    fresh = [key for key, value in model.state_dict().items() if key not in state or not torch.equal(value, state[key])]
    trained = [key for key in fresh if not key.endswith("num_batches_tracked")]
    assert trained == [f"{predictor}.{part}" for part in ("cls_score.weight", "cls_score.bias")] + [
        f"{predictor}.{part}" for part in ("bbox_pred.weight", "bbox_pred.bias")
    ]
    assert all(torch.equal(before[key], model.state_dict()[key]) for key in fresh)


@pytest.mark.parametrize(
    ("others", "classes", "why"),
    [
        (90, ["dog", "red cell"], "is of 90 classes, the data has 2, and COCO has no red cell; train it on the data"),
        (5, ["dog", "person"], "is of 5 classes, the data has 2; train it on the data first: limbeck train detection"),
    ],
)
def test_a_teacher_of_other_classes_is_refused_with_the_remedy(others, classes, why, tmp_path):
    save_file(detector("retinanet", classes=others).state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=why):
        load_detector(model_of(detector("retinanet"), classes), str(tmp_path / "other.safetensors"), name=NAME)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext"])
def test_weights_of_another_detector_are_refused(backbone, tmp_path):
    save_file(detector("retinanet", backbone).state_dict(), tmp_path / "other.safetensors")
    for new_head in (False, True):
        with pytest.raises(ValueError, match="is it a file of this very model"):
            load_detector(
                model_of(detector("retinanet")), str(tmp_path / "other.safetensors"), name=NAME, new_head=new_head
            )


def test_weights_of_the_same_classes_are_loaded_as_they_are_without_a_word(tmp_path):
    plain = detector("retinanet")
    save_file(plain.state_dict(), tmp_path / "same.safetensors")
    model = detector("retinanet", seed=1)
    assert load_detector(model_of(model, ["dog", "cat"]), str(tmp_path / "same.safetensors"), name=NAME) == []
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in model.state_dict().items())


def test_published_weights_are_asked_of_torchvision_by_the_detectors_name(monkeypatch):
    state = published("retinanet")[1]
    asked = []
    monkeypatch.setattr(models, "published", lambda name: asked.append(name) or state)
    model: nn.Module = detector("retinanet", classes=3)
    (note,) = load_detector(model_of(model, CLASSES), "pretrained", name="torchvision:retinanet_resnet50_fpn")
    assert asked == ["torchvision:retinanet_resnet50_fpn"]
    assert note.startswith("torchvision:retinanet_resnet50_fpn from pretrained: of its outputs")
