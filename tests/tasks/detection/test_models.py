import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from limbeck.core.capture import Capture, Layer
from limbeck.data.inputs import Inputs
from limbeck.models.backbone import load_backbone
from limbeck.models.teachers import build_teacher
from limbeck.tasks.detection.inherit import inherit
from limbeck.tasks.detection.models import (
    HEADS,
    build_detector,
    find_encoder,
    gives_masks,
)
from limbeck.tasks.detection.pyramids import levels_of_backbone
from limbeck.tasks.detection.recipe import OF_BOXES, Data
from limbeck.training.record import save_student
from tests.networks import randomize_norms
from tests.tasks.detection.tiny import detector, model_of, picture

CLASSES = ["circle", "square"]
TINY = "test_efficientnet"  # of timm; its smallest with batch norms
ONE_STAGE = {8: "0", 16: "1", 32: "2", 64: "p6", 128: "p7"}  # stride: name in the pyramid
TWO_STAGE = {4: "0", 8: "1", 16: "2", 32: "3"}
FUNCTION = """
from torch import nn
from torchvision.models.detection import fcos_resnet50_fpn


def named(num_classes):
    return fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=num_classes)


class Plain(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
"""


def losses_of(model, pictures, seed=0):
    torch.manual_seed(seed)  # of the regions that are looked at
    return model.train()(*pictures)


def total(losses):
    return torch.stack(list(losses.values())).sum()


def batch_of(head):
    return picture(batch=2 if head == "ssdlite" else 1)  # its head has norms, which one position cannot train


@pytest.mark.parametrize("head", HEADS)
def test_the_losses_of_every_head_reach_the_backbone_and_fall_on_one_picture(head):
    model, pictures = detector(head), batch_of(head)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    before = losses_of(model, pictures)
    assert all("loss" in name or name in ("classification", "bbox_regression", "bbox_ctrness") for name in before)
    assert all(value.ndim == 0 and value.isfinite() for value in before.values())
    for step in range(6):
        optimizer.zero_grad()
        total(losses_of(model, pictures)).backward()
        if not step:
            silent = [name for name, each in model.backbone.body.named_parameters() if not each.grad.any()]
            assert not silent
        optimizer.step()
    assert total(losses_of(model, pictures)) < 0.8 * total(before)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_boxes_inside_the_image_and_labels_from_one_on(head):
    torch.manual_seed(1)
    built = build_detector(f"torchvision:{head}/timm:{TINY}", ["a", "b", "c"])
    model, inputs = built.module, built.inputs
    for part in (model, getattr(model, "roi_heads", model)):
        part.score_thresh = 0.0  # untrained, it is sure of nothing
        part.detections_per_img = 20
    sizes = [(90, 70), (64, 100)]
    assert inputs.multiple == 32
    found = model.eval()([torch.rand(3, *size) for size in sizes])
    for (height, width), said in zip(sizes, found, strict=True):
        assert len(said["boxes"]) == len(said["labels"]) == len(said["scores"]) > 0
        assert said["boxes"].min() >= 0
        assert (said["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert (said["boxes"][:, 2:] >= said["boxes"][:, :2]).all()
        assert set(said["labels"].tolist()) <= {1, 2, 3}
    assert any((said["boxes"][:, 2] > 64).any() for said in found)  # an image is not cut to the smallest side
    if head == "maskrcnn":
        assert [said["masks"].shape[1:] for said in found] == [(1, *size) for size in sizes]


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        (f"fcos/timm:{TINY}", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("fcos/timm:test_resnet.r160_in1k", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_images_are_normalised_as_the_backbone_wants_and_padded_but_not_resized(name, mean, std):
    built = build_detector(f"torchvision:{name}", CLASSES)
    model, inputs = built.module, built.inputs
    assert (inputs.mean, inputs.std) == (mean, std)
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    images = [torch.rand(3, 50, 90), torch.rand(3, 70, 40)]
    with torch.no_grad():
        model.eval()(images)
    (batch,) = seen
    assert batch.shape == (2, 3, 96, 96)
    for image, got in zip(images, batch, strict=True):
        height, width = image.shape[1:]
        expected = (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
        torch.testing.assert_close(got[:, :height, :width], expected)
        assert not got[:, height:].any()
        assert not got[:, :, width:].any()


def test_boxes_and_targets_stay_in_the_pixels_of_the_image():
    model = detector("retinanet")
    images, targets = picture(height=90, width=100)
    batch, kept = model.transform(images, targets)
    assert batch.image_sizes == [(90, 100)]
    assert torch.equal(kept[0]["boxes"], targets[0]["boxes"])
    said = model.transform.postprocess([{"boxes": targets[0]["boxes"]}], batch.image_sizes, [(90, 100)])
    assert torch.equal(said[0]["boxes"], targets[0]["boxes"])


def test_masks_are_given_by_mask_rcnn_alone():
    model = build_detector(f"torchvision:maskrcnn/timm:{TINY}", CLASSES, masks=True).module
    assert gives_masks(model)
    assert not gives_masks(detector("fasterrcnn"))
    for head in ("fasterrcnn", "retinanet"):
        with pytest.raises(ValueError, match=rf"{head}/.*gives boxes without masks; torchvision:maskrcnn/timm:BACKB"):
            build_detector(f"torchvision:{head}/timm:{TINY}", CLASSES, masks=True)


def test_a_detector_of_torchvision_counts_the_background_and_takes_images_as_they_are():
    with torch.device("meta"):
        built = build_detector("torchvision:retinanet_resnet50_fpn", CLASSES)
        model, inputs = built.module, built.inputs
    assert model.head.classification_head.num_classes == 3
    assert isinstance(model, detection.RetinaNet)
    assert inputs == Inputs(None, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 32)
    batch, _ = model.transform([torch.rand(3, 40, 50)])
    assert batch.tensors.shape == (1, 3, 64, 64)
    assert batch.image_sizes == [(40, 50)]


def test_a_function_of_a_file_counts_the_background_and_takes_images_as_they_are(tmp_path):
    (tmp_path / "net.py").write_text(FUNCTION)
    with torch.device("meta"):
        built = build_detector(f"{tmp_path}/net.py:named", CLASSES)
        model, inputs = built.module, built.inputs
    assert model.head.classification_head.num_classes == 3
    assert type(model.transform) is not GeneralizedRCNNTransform
    assert model.transform([torch.rand(3, 40, 50)])[0].image_sizes == [(40, 50)]
    assert inputs.mean == (0.485, 0.456, 0.406)
    built = build_detector(f"{tmp_path}/net.py:Plain", CLASSES)
    plain, inputs = built.module, built.inputs
    assert plain.num_classes == 3
    assert inputs == Inputs(None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run, and its student."""
    folder = tmp_path_factory.mktemp("run")
    name = f"torchvision:fasterrcnn/timm:{TINY}"
    built = build_detector(name, CLASSES)
    model = built.module
    save_student(randomize_norms(model), folder / "student.safetensors", OF_BOXES.card(name, built, Data(folder)))
    return folder, model


def test_a_run_folder_brings_its_weights_and_its_detections(run):
    folder, model = run
    built = build_detector(str(folder), CLASSES)
    again, inputs = built.module, built.inputs
    assert inputs.mean == (0.485, 0.456, 0.406)
    own = again.state_dict()
    assert own.keys() == model.state_dict().keys()
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
    images, _ = picture()
    with torch.no_grad():
        (said,), (expected,) = again.eval()(images), model.eval()(images)
    assert torch.equal(said["boxes"], expected["boxes"])
    assert torch.equal(said["scores"], expected["scores"])


def test_a_run_of_other_classes_or_of_another_task_is_refused(run, tmp_path):
    folder, _ = run
    with pytest.raises(ValueError, match=r"knows the classes \['circle', 'square'\].*the data has \['square'"):
        build_detector(str(folder), ["square", "circle"])
    teacher = build_teacher(build_detector, str(folder), ["square", "circle"], task="detection")
    assert teacher.classes == CLASSES, "its features can be followed"
    with pytest.raises(ValueError, match=r"gives boxes without masks"):
        build_detector(str(folder), CLASSES, masks=True)
    save_student(nn.Linear(2, 2), tmp_path / "student.safetensors", {"task": "semantic", "classes": CLASSES})
    with pytest.raises(ValueError, match=rf"{tmp_path} is a run of semantic, not of detection/instance"):
        build_detector(str(tmp_path), CLASSES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"torchvision:retinant/timm:{TINY}", r"no detector torchvision:retinant/timm:.*: write retinanet$"),
        ("torchvision:nothing/timm:resnet18", r"write fasterrcnn/timm:BACKBONE, maskrcnn/timm:BACKBONE, retinanet/"),
        ("torchvision:fcos/timm:resnt10t", r"timm has no backbone 'resnt10t'; nearest: resnet10t"),
        ("torchvision:fcos/timm:resnet10t.nonsense", r"Invalid pretrained tag"),
        ("torchvision:fcos/timm:test_maxvit", r"test_maxvit is no backbone for images of any size \(height"),
        ("torchvision:keypointrcnn_resnet50_fpn", r"no detector torchvision:keypointrcnn_resnet50_fpn: write maskrcnn"),
        (
            "torchvision:retinanet_resnet50",
            r"no detector torchvision:retinanet_resnet50: write retinanet_resnet50_fpn,",
        ),
        ("torchvision:resnet18", r"no detector torchvision:resnet18: write "),
        (
            "timm:resnet18",
            r"no model 'timm:resnet18' for detection/instance: write torchvision:HEAD/timm:BACKBONE \(heads: ",
        ),
        (
            "retinanet",
            r"no model 'retinanet' for detection/instance: write .*hf:FOLDER, FILE.py:FUNCTION, or the folder",
        ),
        ("net.py:small", r"no file net.py"),
    ],
)
def test_a_name_that_is_none_says_what_would_be(name, message):
    with pytest.raises(ValueError, match=message):
        build_detector(name, CLASSES)


def test_the_backbone_is_the_part_that_classifiers_have():
    assert find_encoder(detector()) == "backbone.body"
    with torch.device("meta"):
        ssd = build_detector("torchvision:ssd300_vgg16", CLASSES).module
    assert find_encoder(ssd) == "backbone.features"
    assert find_encoder(nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 3)})) == "backbone"
    assert find_encoder(nn.Sequential(nn.Conv2d(3, 4, 3))) == ""


@pytest.mark.parametrize(("head", "names"), [("retinanet", ONE_STAGE), ("fasterrcnn", TWO_STAGE)])
def test_levels_are_the_maps_of_the_pyramid_by_stride(head, names):
    model = detector(head)
    model.backbone.train()
    model.backbone.fpn.eval()
    levels = levels_of_backbone(model)
    assert {stride: layer.read.name for stride, layer in levels.items()} == names
    assert [str(layer) for layer in levels.values()] == [f"backbone/{stride}" for stride in names]
    assert model.backbone.training
    assert not model.backbone.fpn.training
    images, _ = picture(128, 256)
    _, features = Capture(model.eval(), levels.values())(images)
    shapes = {stride: tuple(features[layer].shape) for stride, layer in levels.items()}
    assert shapes == {stride: (1, 256, 128 // stride, 256 // stride) for stride in names}
    given = dict(model.backbone(model.transform(images)[0].tensors))
    assert ("pool" in given) is (head == "fasterrcnn")  # which repeats positions of stride 32
    assert all(torch.equal(features[layer], given[names[stride]]) for stride, layer in levels.items())


def test_a_detector_of_torchvision_has_the_same_levels():
    with torch.device("meta"):
        one = build_detector("torchvision:retinanet_resnet50_fpn", CLASSES).module
        two = build_detector("torchvision:fasterrcnn_resnet50_fpn", CLASSES).module
        assert {stride: layer.read.name for stride, layer in levels_of_backbone(one).items()} == ONE_STAGE
        assert {stride: layer.read.name for stride, layer in levels_of_backbone(two).items()} == TWO_STAGE


def test_what_has_no_pyramid_has_no_levels():
    assert levels_of_backbone(nn.Sequential(nn.Conv2d(3, 4, 3))) == {}
    assert levels_of_backbone(nn.ModuleDict({"backbone": nn.Conv2d(3, 4, 3)})) == {}


@pytest.mark.parametrize(
    ("backbone", "layers"),  # what the classifier has at the strides of the pyramid
    [
        ("resnet10t", {"0": "layer2", "1": "layer3", "2": "layer4"}),
        ("mobilenetv3_small_050", {"0": "blocks.1", "1": "blocks.3", "2": "blocks.5"}),
        ("test_vit", {"0": "blocks.5"}),
        ("vit_tiny_patch16_224", {"0": "blocks.11"}),
    ],
)
def test_every_tensor_of_a_classifier_is_loaded_and_its_features_are_there(tmp_path, backbone, layers):
    torch.manual_seed(0)
    classifier = randomize_norms(timm.create_model(backbone))
    state = {key: value + 0.01 * torch.randn_like(value.float()) for key, value in classifier.state_dict().items()}
    classifier.load_state_dict(state)
    save_file(classifier.state_dict(), tmp_path / "weights.safetensors")
    model = detector("retinanet", backbone).eval()
    rest = {key: value.clone() for key, value in model.state_dict().items() if "backbone.body." not in key}
    body = model.backbone.body
    assert load_backbone(model_of(model), str(tmp_path / "weights.safetensors")) == len(body.state_dict())
    for key, value in body.state_dict().items():
        assert torch.equal(value, classifier.state_dict()[key.removeprefix("model.")]), key
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in rest.items()), "nothing else changed"
    size = timm.get_pretrained_cfg(backbone).input_size[-1] if "vit" in backbone else 64
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        found = body(images)
        _, expected = Capture(classifier, map(Layer, layers.values()))(images)
    for there, feature in zip(expected.values(), found, strict=True):
        if there.ndim == 3:  # tokens after the class token
            there = there[:, -feature[0, 0].numel() :].mT.unflatten(2, feature.shape[2:])
        torch.testing.assert_close(feature, there)


def test_a_classifier_of_another_backbone_is_refused(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.safetensors")
    model = detector()
    with pytest.raises(ValueError, match=r"does not fit the encoder of RetinaNet: \d+ of \d+ tensors are not in it"):
        load_backbone(model_of(model), str(tmp_path / "weights.safetensors"))
    with pytest.raises(ValueError, match=r"Sequential has no encoder or backbone to load timm:resnet18 into"):
        load_backbone(model_of(nn.Sequential()), "timm:resnet18")


def test_a_student_inherits_neck_and_heads_but_not_the_backbone():
    student, teacher = detector(seed=0), detector(backbone="test_resnet", seed=1)
    body = {key: value.clone() for key, value in student.backbone.body.state_dict().items()}
    before = {key: value.clone() for key, value in student.state_dict().items()}
    fresh = inherit(student, teacher)
    inner = [f"backbone.fpn.inner_blocks.{index}.0" for index in range(3)]  # of other channels; a bias goes with them
    assert fresh == [f"{path}.{name}" for path in inner for name in ("bias", "weight")]
    for key, value in student.state_dict().items():
        if key.startswith("backbone.body."):
            assert torch.equal(value, body[key.removeprefix("backbone.body.")]), key
        elif key in fresh:
            assert torch.equal(value, before[key]), key
        else:
            assert torch.equal(value, teacher.state_dict()[key]), key
    heads = [
        key for key in before if key.startswith("head.") and not torch.equal(before[key], student.state_dict()[key])
    ]
    assert len(heads) == 10, "the weights were others"


def test_an_inherited_detector_of_the_same_backbone_has_no_fresh_tensor_and_keeps_its_own_body():
    student, teacher = detector("fasterrcnn", seed=0), detector("fasterrcnn", seed=1)
    assert inherit(student, teacher) == []
    stem = "backbone.body.conv_stem.weight"
    assert not torch.equal(student.state_dict()[stem], teacher.state_dict()[stem])
    assert torch.equal(student.roi_heads.box_head.fc6.weight, teacher.roi_heads.box_head.fc6.weight)
    student.roi_heads.box_head.fc6.weight.data.add_(1)  # nothing is shared
    assert not torch.equal(student.roi_heads.box_head.fc6.weight, teacher.roi_heads.box_head.fc6.weight)


def test_nothing_to_inherit_is_an_error():
    student = nn.ModuleDict({"backbone": nn.ModuleDict({"body": nn.Conv2d(3, 4, 3)}), "head": nn.Conv2d(4, 2, 1)})
    teacher = nn.ModuleDict({"backbone": nn.ModuleDict({"body": nn.Conv2d(3, 4, 3)}), "head": nn.Conv2d(9, 2, 1)})
    bias = student["head"].bias.clone()
    with pytest.raises(ValueError, match=r"no layer of ModuleDict's neck or heads has the shape .*leave --inherit out"):
        inherit(student, teacher)
    assert torch.equal(student["head"].bias, bias), "a bias alone is none"
