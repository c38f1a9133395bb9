import copy

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from limbeck import Capture, Layer, channels_first, tokens_to_map
from limbeck.models.features import before_activation, last_spatial, stages, survey, survey_used
from tests import nets
from tests.networks import Block, TokenNet, convnet, images, randomize_norms


def test_survey_lists_submodules_in_the_order_in_which_they_finished():
    found = survey(convnet(4), images())
    paths = ["stem", "norm", "act", "body", "body_act", "pool", "flatten", "head", ""]
    kinds = ["map"] * 6 + ["vector"] * 3
    assert [(f.path, f.kind) for f in found] == list(zip(paths, kinds, strict=True))
    assert [found[n].shape for n in (0, 3, 8)] == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 5)]
    assert [found[n].size for n in (0, 3, 8)] == [(8, 8), (4, 4), None]


def test_survey_leaves_modes_buffers_and_hooks_as_they_were():
    model = convnet(4).train()
    model.act.eval()
    before = copy.deepcopy(model.state_dict())
    survey(model, images())
    assert [name for name, module in model.named_modules() if not module.training] == ["act"]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_survey_restores_the_model_after_a_forward_that_raised():
    model = convnet(4).train()
    with pytest.raises(RuntimeError, match="expected input"):
        survey(model, torch.zeros(1, 1, 16, 16))
    assert all(module.training and not module._forward_hooks for module in model.modules())


def test_survey_passes_by_what_is_no_tensor():
    found = survey(Block(lambda block, x: (block.a(x), block.b(x))), images())
    assert [f.path for f in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("shape", "kind", "grid"),
    [
        ((2, 3, 8, 8), "map", (8, 8)),
        ((2, 8, 8, 3), "map (H, W, C)", (8, 8)),
        ((2, 8, 8, 8), "map", (8, 8)),
        ((2, 17, 8), "tokens", (4, 4)),
        ((2, 8), "vector", None),
        ((2, 3, 4, 5, 6), "other", None),
    ],
)
def test_kind_of_a_feature_is_told_by_its_shape(shape, kind, grid):
    (found,) = survey(nn.Identity(), torch.zeros(shape))
    assert (found.kind, found.size) == (kind, grid)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_layer_of_tokens_reads_the_patches_as_a_map(prefix):
    patches = torch.randn(2, 6, 7, 7)
    tokens = torch.cat([torch.zeros(2, prefix, 6), patches.flatten(2).transpose(1, 2)], 1)
    (found,) = survey(nn.Identity(), tokens)
    assert torch.equal(found.layer.read(tokens), patches)


@pytest.mark.parametrize(
    ("make", "size", "layer"),
    [
        (lambda: convnet(4), 16, Layer("pool")),
        (lambda: TokenNet(4), 16, Layer("block", tokens_to_map(1))),
        (lambda: timm.create_model("resnet18"), 64, Layer("layer4")),
        (lambda: timm.create_model("mobilenetv2_100"), 64, Layer("bn2")),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), 64, Layer("norm", tokens_to_map(1))),
        (
            lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2),
            64,
            Layer("norm", channels_first),
        ),
    ],
    ids=["convolutions", "tokens", "resnet18", "mobilenetv2", "vit", "swin"],
)
def test_last_feature_is_the_last_map_or_tokens_and_can_be_captured(make, size, layer):
    model = make().eval()
    assert last_spatial(model, survey(model, images(size=size))).layer == layer
    feature = Capture(model, [layer])(images(size=size))[1][layer]
    assert feature.ndim == 4
    assert feature.shape[2] == feature.shape[3] > 1


def test_last_feature_is_not_one_that_a_later_module_changes_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(2))
    layer = last_spatial(model, survey(model, images())).layer
    assert layer == Layer("2")
    assert torch.equal(Capture(model, [layer])(images())[1][layer], model[:3](images()))


def test_model_without_a_map_of_more_than_one_position_is_refused_with_the_remedy():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"no submodule of Sequential gives a map .* use larger images, or"):
        last_spatial(model, survey(model, images()))


# --- stages ---


def vit():
    return timm.create_model("vit_tiny_patch16_224", img_size=64, qk_norm=True)


def swin():
    return timm.create_model("swin_tiny_patch4_window7_224", img_size=64, window_size=2)


STAGES = {
    "convolutions": (lambda: nets.small(5), 16, ["0", "2"]),
    "tokens": (lambda: TokenNet(4), 16, ["block"]),
    "resnet18": (lambda: timm.create_model("resnet18"), 64, ["layer1", "layer2", "layer3", "layer4"]),
    "mobilenetv3": (
        lambda: timm.create_model("mobilenetv3_small_100"),
        64,
        ["blocks.0", "blocks.1", "blocks.3", "blocks"],  # not the expansions of the blocks that follow
    ),
    "resnet50": (lambda: timm.create_model("resnet50"), 64, ["layer1", "layer2", "layer3", "layer4"]),
    "convnext": (
        lambda: timm.create_model("convnext_atto"),
        64,
        ["stages.0", "stages.1", "stages.2", "stages"],  # not the norms before the next stages' convolutions
    ),
    "vit": (vit, 64, ["norm"]),
    "swin": (swin, 64, ["layers.0", "layers.1", "layers.2", "norm"]),
}


@pytest.mark.parametrize(("make", "size", "paths"), STAGES.values(), ids=STAGES)
def test_stages_are_the_last_features_of_each_size_and_can_be_captured(make, size, paths):
    torch.manual_seed(0)
    model = make()
    found = stages(model, survey(model, images(size=size)))
    assert [stage.path for stage in found] == paths
    features = Capture(model, [stage.layer for stage in found])(images(size=size))[1].values()
    grids = [feature.shape[2] for feature in features]
    assert grids == sorted(set(grids), reverse=True)
    assert last_spatial(model, survey(model, images(size=size))).layer == found[-1].layer


@pytest.mark.parametrize("most", [1, 2, 3])
def test_no_more_stages_than_wanted_and_those_the_last(most):
    model = convnet(4)
    found = stages(model, survey(model, images()), most)
    assert [stage.path for stage in found] == ["act", "body_act", "pool"][-most:]


BEFORE = {
    "convolutions": (lambda: nets.small(5), 16, ["0.2", "2.2"]),
    "resnet18": (lambda: timm.create_model("resnet18"), 64, [f"layer{n}.1.act2" for n in (1, 2, 3, 4)]),
}


@pytest.mark.parametrize(("make", "size", "paths"), BEFORE.values(), ids=BEFORE)
def test_before_activation_is_what_the_activation_takes(make, size, paths):
    torch.manual_seed(0)
    model, x = randomize_norms(make()), images(size=size)
    surveyed = survey(model, x)
    found = stages(model, surveyed)
    layers = [before_activation(model, surveyed, stage) for stage in found]
    assert layers == [Layer(path, input=True) for path in paths]
    features = Capture(model, [*layers, *(stage.layer for stage in found)])(x)[1]
    for layer, stage in zip(layers, found, strict=True):
        activation = model.get_submodule(layer.path)
        assert features[layer].min() < 0
        assert torch.equal(activation(features[layer]), features[stage.layer])


def test_a_linear_bottleneck_is_read_as_it_is():
    torch.manual_seed(0)
    model, x = randomize_norms(timm.create_model("mobilenetv3_small_100")), images(size=64)
    surveyed = survey(model, x)
    layers = [before_activation(model, surveyed, stage) for stage in stages(model, surveyed)]
    linear = [Layer(f"blocks.{number}") for number in (0, 1, 3)]
    assert layers == [*linear, Layer("blocks.5.0.bn1.act", input=True)]


def test_before_activation_changes_nothing_of_what_the_model_gives():
    torch.manual_seed(0)
    model, x = timm.create_model("resnet18").eval(), images(size=64)
    expected = model(x)
    surveyed = survey(model, x)
    for stage in stages(model, surveyed):
        before_activation(model, surveyed, stage)
    assert torch.equal(model(x), expected)


def test_before_activation_of_a_feature_that_ends_in_none_is_the_feature():
    for model in (TokenNet(4), nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())):
        surveyed = survey(model, images())
        (stage,) = stages(model, surveyed)
        assert before_activation(model, surveyed, stage) == stage.layer


def test_activation_that_runs_several_times_is_refused_with_the_remedy():
    model = torchvision.models.resnet18()
    surveyed = survey(model, images(size=64))
    last = stages(model, surveyed)[-1]
    assert last.path == "layer4"
    with pytest.raises(ValueError, match=r"layer4.1.relu of ResNet runs several times, .* timm's models have one"):
        before_activation(model, surveyed, last)


def test_activation_that_is_no_module_is_refused_with_the_remedy():
    model = nn.Sequential(Block(lambda block, x: block.a(x).relu()), nn.Flatten())
    surveyed = survey(model, images())
    with pytest.raises(
        ValueError, match=r"0 of Sequential ends in an activation that is no module, .* name the layers"
    ):
        before_activation(model, surveyed, stages(model, surveyed)[-1])


# --- models that name their stages ---

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}
NAMED = {
    "SigLIP": ("vit_base_patch16_siglip_224", {**SMALL, "img_size": 64}, (64, 64), ["norm"], (4, 4)),
    "PE-core": ("vit_pe_core_tiny_patch16_384", {**SMALL, "img_size": 64}, (64, 64), ["norm"], (4, 4)),
    "NaFlexViT": ("naflexvit_base_patch16_gap", SMALL, (64, 96), ["norm"], (4, 6)),
    "VOLO": ("volo_d1_224", {"img_size": 64}, (64, 64), ["network.0", "norm"], (4, 4)),
    "CLIP ResNet": (
        "resnet50_clip",
        {"img_size": 64},
        (64, 64),
        [f"stages.{n}" for n in (0, 1, 2)] + ["stages"],
        (2, 2),
    ),
    "ViT, no square": ("vit_tiny_patch16_224", {**SMALL, "img_size": (112, 224)}, (112, 224), ["norm"], (7, 14)),
    "ViT with registers": (
        "vit_tiny_patch16_224",
        {**SMALL, "reg_tokens": 4, "img_size": 64},
        (64, 64),
        ["norm"],
        (4, 4),
    ),
    "stages as tuples before the last": ("mvitv2_tiny", {"img_size": 64}, (64, 64), ["norm"], (2, 2)),
}


@pytest.mark.parametrize(("name", "options", "size", "paths", "grid"), NAMED.values(), ids=NAMED)
def test_stages_are_what_the_model_itself_says(name, options, size, paths, grid):
    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    x = torch.rand(2, 3, *size)
    found = stages(model, survey(model, x))
    assert [stage.path for stage in found] == paths
    assert found[-1].size == grid
    with torch.no_grad():
        feature = Capture(model, [found[-1].layer])(x)[1][found[-1].layer]
        last, maps = model.forward_intermediates(x)
    assert feature.shape == maps[-1].shape
    tokens = feature.flatten(2).mT
    assert torch.equal(feature, last) if last.ndim == 4 else torch.equal(tokens, last[:, -tokens.shape[1] :])


def test_stages_that_no_submodule_gives_are_refused_with_the_remedy():
    model = timm.create_model("coat_tiny", img_size=64)
    with pytest.raises(ValueError, match=r"what CoaT.forward_intermediates gives last .* no submodule; name a layer"):
        last_spatial(model, survey(model, images(size=64)))


class Wrapped(nn.Module):
    """A model that calls one of timm's as a part of it."""

    def __init__(self):
        super().__init__()
        self.encoder = timm.create_model("vit_tiny_patch16_224", img_size=(32, 64), num_classes=5, **SMALL)

    def forward(self, x):
        return self.encoder(x)


def test_stages_of_a_part_are_what_the_part_itself_says():
    model = Wrapped()
    found = stages(model, survey_used(model, torch.rand(2, 3, 32, 64), lambda scores: scores))
    assert [(stage.path, stage.size) for stage in found] == [("encoder.norm", (2, 4))]


# --- images that are no squares ---


@pytest.mark.parametrize(("height", "width"), [(16, 32), (48, 32), (20, 32)])
@pytest.mark.parametrize("prefix", [0, 1, 4])
def test_tokens_of_an_image_that_is_no_square_are_read_as_its_patches(height, width, prefix):
    grid = (height // 4, width // 4)

    def steps(block, x):
        patches = F.avg_pool2d(block.a(x), 4)
        return block.c(torch.cat([patches.new_zeros(len(x), prefix, 3), patches.flatten(2).mT], 1))

    model = Block(steps)
    model.c = nn.Identity()
    layer = last_spatial(model, survey(model, torch.rand(2, 3, height, width))).layer
    assert layer == Layer("c", tokens_to_map(prefix, grid))


def test_maps_of_an_image_that_is_no_square_may_have_their_channels_last():
    model = nn.Sequential(nn.Conv2d(3, 5, 2, 2), Block(lambda block, x: x.permute(0, 2, 3, 1)))
    found = survey(model, torch.rand(2, 3, 16, 24))
    assert [(each.path, each.kind, each.size) for each in found] == [
        ("0", "map", (8, 12)),
        ("1", "map (H, W, C)", (8, 12)),
        ("", "map (H, W, C)", (8, 12)),
    ]
