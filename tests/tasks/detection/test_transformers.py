import copy
import importlib
import json
import pickle
import socket
import sys
from types import SimpleNamespace

import pytest
import torch

from limbeck.core.capture import Capture, Layer
from limbeck.data.inputs import Inputs
from limbeck.tasks.detection.transformer_levels import find_backbone, levels_of_transformer, map_of
from limbeck.tasks.detection.transformers import TransformerDetector, build_transformer

transformers = pytest.importorskip("transformers")

CLASSES = ["cat", "dog", "bird"]
SIZES = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 12,
}
MAPS = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
LAST = {"backbone_config": {"model_type": "resnet", "out_features": ["stage4"], **MAPS}}
THREE = {"out_features": ["stage2", "stage3", "stage4"]}
HYBRID = {"d_model": 32, "encoder_hidden_dim": 32, "decoder_in_channels": [32, 32, 32], "num_denoising": 10, **SIZES}
RT = {
    "encoder_in_channels": [16, 24, 32],
    "backbone_config": {"model_type": "rt_detr_resnet", **MAPS, **THREE},
    **HYBRID,
}
HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 16, 16],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [16, 16, 16, 16],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, False, False],
    "stage_kernel_size": [3, 3, 3, 3],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "embedding_size": 8,
    "hidden_sizes": [16, 16, 16, 16],
    "depths": [1, 1, 1, 1],
    **THREE,
}
HG = {"encoder_in_channels": [16, 16, 16], "backbone_config": HGNET, **HYBRID}
KINDS = {
    "detr": ("DetrConfig", {"d_model": 32, **LAST, **SIZES}),
    "rt_detr_v2": ("RTDetrV2Config", RT),
    "d_fine": ("DFineConfig", HG),
    "rt_detr": ("RTDetrConfig", RT),
    "deimv2": ("Deimv2Config", HG),
    "conditional_detr": ("ConditionalDetrConfig", {"d_model": 32, **LAST, **SIZES}),
    "dab_detr": ("DabDetrConfig", {"hidden_size": 32, **LAST, **SIZES}),
    "deformable_detr": (
        "DeformableDetrConfig",
        {"d_model": 32, "backbone_config": {"model_type": "resnet", **MAPS, **THREE}, **SIZES},
    ),
    "table_transformer": ("TableTransformerConfig", {"d_model": 32, "use_timm_backbone": False, **LAST, **SIZES}),
}
MAIN = ["detr", "rt_detr_v2", "d_fine"]
MASKED = ["detr", "conditional_detr", "dab_detr", "deformable_detr", "table_transformer"]
PROCESSORS = {
    "detr": "DetrImageProcessor",
    "rt_detr_v2": "RTDetrImageProcessor",
    "d_fine": "RTDetrImageProcessor",
    "conditional_detr": "ConditionalDetrImageProcessor",
    "deformable_detr": "DeformableDetrImageProcessor",
}
LEVELS = {
    "detr": {32: Layer("model.model.input_projection")},
    "deformable_detr": {stride: Layer(f"model.model.input_proj.{i}") for i, stride in enumerate((8, 16, 32, 64))},
    "rt_detr_v2": {s: Layer("model.model.encoder", map_of(i), label=f"/{s}") for i, s in enumerate((8, 16, 32))},
}
LEVELS["d_fine"] = LEVELS["deimv2"] = LEVELS["rt_detr"] = LEVELS["rt_detr_v2"]
LEVELS["conditional_detr"] = LEVELS["dab_detr"] = LEVELS["table_transformer"] = LEVELS["detr"]


def configuration(kind, **changes):
    name, arguments = KINDS[kind]
    return getattr(transformers, name)(**{**arguments, **changes})


def built(kind, folder, **changes):
    torch.manual_seed(0)
    configuration(kind, **changes).save_pretrained(folder)
    return build_transformer(folder, CLASSES)[0]


def trained(kind, folder, classes=CLASSES):
    """A folder of weights, and their model."""
    torch.manual_seed(1)
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    model = transformers.AutoModelForObjectDetection.from_config(configuration(kind, **labels))
    model.save_pretrained(folder)
    return model


def pictures(*sizes):
    torch.manual_seed(2)
    return [torch.rand(3, *size) for size in sizes]


def target(*boxes, labels):
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}


def detected(detector, images):
    with torch.no_grad():
        return detector.eval()(images)


class Echo:
    """Stands for a model that knows the truth: it answers with the boxes that it was told last."""

    def __init__(self, detector):
        self.outputs = detector.model.class_labels_classifier.out_features if softmax(detector) else len(CLASSES)

    def __call__(self, pixel_values, pixel_mask=None, labels=None):
        self.pixels, self.mask = pixel_values, pixel_mask
        if labels is not None:
            self.labels = labels
            return SimpleNamespace(loss=torch.zeros(()))
        logits = torch.full((len(self.labels), 2, self.outputs), -20.0)
        for place, each in enumerate(self.labels):
            logits[place, torch.arange(2), each["class_labels"]] = torch.tensor([20.0, 10.0])
        return SimpleNamespace(logits=logits, pred_boxes=torch.stack([each["boxes"] for each in self.labels]))


def softmax(detector):
    return detector.model.config.model_type in ("detr", "table-transformer")


@pytest.mark.parametrize("kind", KINDS)
def test_a_detector_is_built_from_a_configuration_and_detects_inside_its_images(kind, tmp_path):
    detector = built(kind, tmp_path, num_queries=200)  # untrained, it finds many in the padding
    assert detector.model.config.id2label == dict(enumerate(CLASSES))
    found = detected(detector, pictures((120, 150), (128, 110)))
    for said, (height, width) in zip(found, [(120, 150), (128, 110)], strict=True):
        assert list(said) == ["boxes", "labels", "scores"]
        assert [part.dtype for part in said.values()] == [torch.float32, torch.int64, torch.float32]
        assert len(said["boxes"]) == len(said["labels"]) == len(said["scores"]) > 0
        left, top, right, bottom = said["boxes"].unbind(1)
        assert (left >= 0).all()
        assert (top >= 0).all()
        assert (left < right).all()
        assert (top < bottom).all()
        assert right.max() <= width
        assert bottom.max() <= height
        assert set(said["labels"].tolist()) <= {1, 2, 3}


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss(kind, tmp_path):
    detector = built(kind, tmp_path).train()
    images = pictures((100, 80), (64, 120))
    targets = [target([10.0, 20.0, 60.0, 70.0], labels=[1]), target(labels=[])]
    optimizer = torch.optim.AdamW(detector.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        loss = torch.stack(list(detector(images, targets).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize("kind", ["detr", "deformable_detr"])
def test_what_was_learned_in_a_padded_batch_is_found_in_the_pixels_where_it_is(kind, tmp_path):
    detector = built(kind, tmp_path).train()
    images = pictures((100, 80), (128, 160))
    targets = [target([10.0, 20.0, 60.0, 70.0], labels=[1]), target([90.0, 10.0, 150.0, 60.0], labels=[3])]
    optimizer = torch.optim.AdamW(detector.parameters(), 2e-3)
    for _ in range(100):
        optimizer.zero_grad()
        detector(images, targets)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 1.0)
        optimizer.step()
    alone = detected(detector, images[:1]) + detected(detector, images[1:])
    for said in (detected(detector, images), alone):
        for each, truth in zip(said, targets, strict=True):
            best = each["scores"].argmax()
            assert each["labels"][best] == truth["labels"]
            torch.testing.assert_close(each["boxes"][best], truth["boxes"][0], atol=12, rtol=0)


def test_the_loss_is_the_models_own(tmp_path):
    detector = built("rt_detr_v2", tmp_path, num_denoising=0).train()  # denoising is random
    image = pictures((96, 64))[0]
    losses = detector([image], [target([8.0, 24.0, 40.0, 72.0], labels=[2])])
    label = {"boxes": torch.tensor([[24 / 64, 48 / 96, 32 / 64, 48 / 96]]), "class_labels": torch.tensor([1])}
    own = detector.model(image[None], labels=[label])
    assert list(losses) == ["loss"]
    torch.testing.assert_close(losses["loss"], own.loss)
    torch.testing.assert_close(losses["loss"], sum(own.loss_dict.values()))


@pytest.mark.parametrize("kind", PROCESSORS)
def test_detections_are_those_of_the_image_processor(kind, tmp_path):
    detector = built(kind, tmp_path, num_queries=60)  # 180 scores where a query may have several classes
    images = pictures((96, 160), (96, 160))
    found = detected(detector, images)
    pixels = torch.stack([(image - detector.mean) / detector.std for image in images])
    with torch.no_grad():
        output = detector.model(pixels)
    processor = getattr(transformers, PROCESSORS[kind])()
    theirs = processor.post_process_object_detection(output, threshold=0.0, target_sizes=[(96, 160)] * 2)
    for said, expected in zip(found, theirs, strict=True):
        assert len(said["scores"]) == {"conditional_detr": 100, "deformable_detr": 100}.get(kind, 60)
        torch.testing.assert_close(said["scores"], expected["scores"])
        assert torch.equal(said["labels"], expected["labels"] + 1)
        clipped = expected["boxes"].clamp(torch.zeros(4), torch.tensor([160.0, 96.0, 160.0, 96.0]))
        torch.testing.assert_close(said["boxes"], clipped)


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_that_a_model_is_told_comes_back_in_the_same_pixels(kind, tmp_path, monkeypatch):
    detector = built(kind, tmp_path)
    assert detector.masked == (kind in MASKED)
    echo = Echo(detector)
    monkeypatch.setattr(detector.model, "forward", echo)
    images = pictures((100, 80), (64, 150))
    targets = [
        target([10.0, 20.0, 60.0, 70.0], [0.0, 0.0, 80.0, 100.0], labels=[3, 1]),
        target([70.0, 4.0, 150.0, 60.0], [1.0, 2.0, 30.0, 40.0], labels=[2, 2]),
    ]
    detector.train()(images, targets)
    width, height = (80, 100) if detector.masked else (160, 128)
    expected = torch.tensor([35 / width, 45 / height, 50 / width, 50 / height])
    torch.testing.assert_close(echo.labels[0]["boxes"][0], expected)
    for said, truth in zip(detected(detector, images), targets, strict=True):
        first = said["scores"].argsort(descending=True)[:2]
        torch.testing.assert_close(said["boxes"][first], truth["boxes"])
        assert torch.equal(said["labels"][first], truth["labels"])


@pytest.mark.parametrize("kind", MAIN)
def test_images_are_normalised_and_padded_at_the_right_and_the_bottom(kind, tmp_path, monkeypatch):
    detector = built(kind, tmp_path)
    echo = Echo(detector)
    monkeypatch.setattr(detector.model, "forward", echo)
    images = pictures((100, 80), (64, 150))
    detector.train()(images, [target(labels=[])] * 2)
    assert echo.pixels.shape == (2, 3, 128, 160)
    mean, std = Inputs(32).mean, Inputs(32).std
    mean, std = (torch.tensor(each)[:, None, None] for each in ((mean, std) if kind == "detr" else ([0.0], [1.0])))
    torch.testing.assert_close(echo.pixels[0, :, :100, :80], (images[0] - mean) / std)
    assert not echo.pixels[0, :, 100:].any()
    assert not echo.pixels[0, :, :, 80:].any()
    if kind == "detr":
        assert echo.mask.sum((1, 2)).tolist() == [100 * 80, 64 * 150]
        assert echo.mask[0, :100, :80].all()
    else:
        assert echo.mask is None


@pytest.mark.parametrize("kind", MASKED)
def test_an_image_is_seen_alone_as_it_is_beside_a_larger_one(kind, tmp_path):
    detector = built(kind, tmp_path)
    small, large = pictures((224, 160), (256, 288))
    alone, beside = detected(detector, [small])[0], detected(detector, [small, large])[0]
    detector.masked = False
    unmasked = detected(detector, [small, large])[0]
    torch.testing.assert_close(beside["scores"], alone["scores"], atol=0.01, rtol=0)
    assert farthest(beside, alone) < 0.1  # pixels
    assert farthest(unmasked, alone) > 30, "the same without the mask would show nothing"


def farthest(one, other):
    return (one["boxes"].sort(0)[0] - other["boxes"].sort(0)[0]).abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_levels_have_the_strides_they_claim(kind, tmp_path):
    detector = built(kind, tmp_path).train()
    levels = levels_of_transformer(detector)
    assert levels == LEVELS[kind]
    assert detector.training
    assert not any(module._forward_hooks for module in detector.modules())
    _, features = Capture(detector.eval(), pickle.loads(pickle.dumps(list(levels.values()))))(pictures((256, 192)))
    for stride, layer in levels.items():
        assert features[layer].shape == (1, 32, 256 // stride, 192 // stride)


@pytest.mark.parametrize("kind", KINDS)
def test_the_path_of_the_backbone_is_that_of_a_model_of_its_own(kind, tmp_path):
    detector = built(kind, tmp_path)
    backbone = detector.get_submodule(find_backbone(detector))
    with torch.no_grad():
        assert backbone.eval()(torch.zeros(1, 3, 64, 64)).feature_maps[-1].shape[2:] == (2, 2)


@pytest.mark.parametrize("kind", MAIN)
def test_weights_that_were_saved_are_loaded(kind, tmp_path):
    model = trained(kind, tmp_path)
    detector, _ = build_transformer(tmp_path, CLASSES)
    own = detector.model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())
    assert detector.state_dict().keys() == {f"model.{key}" for key in own}


@pytest.mark.parametrize("kind", MAIN)
def test_only_the_layers_of_the_classes_are_fresh_for_another_number_of_classes(kind, tmp_path):
    model = trained(kind, tmp_path, ["a", "b", "c", "d", "e"])
    detector, _ = build_transformer(tmp_path, CLASSES)
    own = detector.model.state_dict()
    other = {key for key, value in model.state_dict().items() if not torch.equal(value, own[key])}
    assert other
    assert all("class" in name or "enc_score_head" in name for name in other)
    assert detected(detector, pictures((96, 64)))[0]["labels"].max() <= 3


def test_as_many_classes_by_other_names_are_refused(tmp_path):
    trained("detr", tmp_path)
    with pytest.raises(ValueError, match=r"knows the classes \['cat', 'dog', 'bird'\]..., the data has \['dog'"):
        build_transformer(tmp_path, ["dog", "cat", "bird"])


@pytest.mark.parametrize("change", [{"d_model": 16}, {"decoder_layers": 3}])
def test_weights_that_do_not_fit_the_configuration_are_refused(change, tmp_path):
    trained("detr", tmp_path)
    card = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**card, **change}))
    with pytest.raises(ValueError, match=r"do not fit its config.json: \d+ tensors are missing or of another shape"):
        build_transformer(tmp_path, CLASSES)


def test_a_folder_brings_its_normalisation(tmp_path):
    card = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    configuration("rt_detr_v2").save_pretrained(tmp_path)
    assert build_transformer(tmp_path, CLASSES)[1] == Inputs(None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 32)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(card))
    detector, inputs = build_transformer(tmp_path, CLASSES)
    assert inputs == Inputs(None, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32)
    assert detector.std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_a_backbone_of_timm_is_built_without_its_weights(tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    arguments = {"use_timm_backbone": True, "backbone": "resnet10t", "use_pretrained_backbone": True}
    card = {"model_type": "detr", "d_model": 32, **SIZES, **arguments}  # as older versions wrote it
    (tmp_path / "config.json").write_text(json.dumps(card))
    detector, _ = build_transformer(tmp_path, CLASSES)
    assert type(detector.get_submodule(find_backbone(detector))).__name__ == "FeatureListNet"
    assert levels_of_transformer(detector) == LEVELS["detr"]


@pytest.mark.parametrize("kind", ["rt_detr_v2", "d_fine"])
def test_a_configuration_for_one_size_is_built_for_any(kind, tmp_path):
    detector = built(kind, tmp_path, anchor_image_size=[64, 64])
    assert len(detected(detector, pictures((96, 160)))[0]["boxes"]) > 0


def test_half_precision_of_a_configuration_is_not_trained_in(tmp_path):
    detector = built("detr", tmp_path, dtype="float16")
    assert {parameter.dtype for parameter in detector.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", MAIN)
def test_a_copy_is_a_detector_of_its_own(kind, tmp_path):
    detector = built(kind, tmp_path)
    images = pictures((64, 96))
    before = detected(detector, images)[0]
    twin = copy.deepcopy(detector)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.1)
    after = detected(twin, images)[0]
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert twin.model.state_dict().keys() == detector.model.state_dict().keys()


def test_frozen_norms_stay_as_they_are_in_training(tmp_path):
    detector = built("detr", tmp_path).train()
    before = {name: value.clone() for name, value in detector.named_buffers()}
    detector(pictures((64, 96)), [target([1.0, 2.0, 30.0, 40.0], labels=[1])])
    assert sum("running" in name for name in before) > 10
    assert all(torch.equal(value, before[name]) for name, value in detector.named_buffers())


def test_targets_are_needed_in_training_and_not_looked_at_otherwise(tmp_path):
    detector = built("detr", tmp_path).train()
    with pytest.raises(ValueError, match=r"in training mode needs targets; call eval\(\)"):
        detector(pictures((64, 96)))
    assert list(detector.eval()(pictures((64, 96)), [target(labels=[])])[0]) == ["boxes", "labels", "scores"]


def test_bfloat16_gives_float32_boxes(tmp_path):
    detector = built("rt_detr_v2", tmp_path)
    images = pictures((64, 96))
    with torch.autocast("cpu", torch.bfloat16):
        assert detected(detector, images)[0]["boxes"].dtype == torch.float32
        loss = detector.train()(images, [target([1.0, 2.0, 30.0, 40.0], labels=[1])])["loss"]
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert detected(detector.bfloat16(), images)[0]["boxes"].dtype == torch.float32  # as a teacher may be held


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no .*config.json; hf: takes the folder of a model, or of its configuration"):
        build_transformer(tmp_path, CLASSES)


@pytest.mark.parametrize("text", ["{", '{"model_type": "nothing"}', '{"model_type": "detr", "d_model": "wide"}'])
def test_a_configuration_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config.json cannot be read: "):
        build_transformer(tmp_path, CLASSES)


def test_a_model_of_another_kind_is_refused(tmp_path):
    transformers.SegformerConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"config.json is of a segformer, which detects no objects; hf: takes DETR"):
        build_transformer(tmp_path, CLASSES)


def test_a_configuration_that_cannot_be_built_is_refused(tmp_path):
    card = {"model_type": "detr", "use_timm_backbone": True, "backbone": "resnt10"}
    (tmp_path / "config.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"the detr of .* cannot be built: .*resnt10"):
        build_transformer(tmp_path, CLASSES)


def test_a_pickle_is_refused(tmp_path):
    configuration("detr").save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pytorch_model.bin is no safetensors.*: refused; .*save_pretrained"):
        build_transformer(tmp_path, CLASSES)


def test_a_model_without_maps_has_its_layers_named_by_the_user(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.YolosConfig(image_size=[64, 64], num_detection_tokens=12, **sizes).save_pretrained(tmp_path)
    detector, _ = build_transformer(tmp_path, CLASSES)
    assert len(detected(detector, pictures((96, 64)))[0]["boxes"]) > 0
    assert levels_of_transformer(detector) == {}


def test_a_model_that_is_not_of_this_kind_says_why():
    card = transformers.SegformerConfig(depths=[1] * 4, hidden_sizes=[8] * 4, num_attention_heads=[1] * 4)
    with pytest.raises(ValueError, match=r"SegformerForSemanticSegmentation gives no logits and pred_boxes"):
        TransformerDetector(transformers.SegformerForSemanticSegmentation(card), Inputs(32))


@pytest.mark.parametrize("module", ["transformers", "scipy.optimize"])
def test_a_package_that_is_not_installed_is_named_with_how_to_get_it(monkeypatch, module, tmp_path):
    transformers.DetrConfig().save_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError):
        importlib.import_module(module)
    with pytest.raises(ValueError, match=r"pip install 'limbeck\[hf\]'"):
        build_transformer(tmp_path, CLASSES)
