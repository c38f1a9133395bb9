import pytest
import timm
import torch
import torchvision
from torch import nn

from limbeck import Distiller, Layer, Match, channels_first, conv1x1
from limbeck.core.capture import Capture
from limbeck.core.layout import check_layout
from limbeck.core.trace import trace
from tests.networks import TokenNet, convnet, images


def check(model, layer, x):
    layer = Layer(layer) if isinstance(layer, str) else layer
    check_layout(model, layer, Capture(model.eval(), [layer])(x)[1][layer])


@pytest.fixture(scope="module")
def swin():
    return timm.create_model(
        "swin_s3_tiny_224", embed_dim=24, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), num_classes=5
    )


@pytest.mark.parametrize("path", ["layers.3", "layers.3.blocks.0", "norm", "layers.0"])
def test_map_of_a_swin_transformer_is_refused_by_path_and_taken_as_it_is_read(swin, path):
    x = torch.randn(2, 3, 224, 224)
    with pytest.raises(
        ValueError, match=rf"layer {path} of .* as \(B, H, W, C\); pass Layer\('{path}', read=channels_f"
    ):
        check(swin, path, x)
    check(swin, Layer(path, channels_first), x)


def test_map_of_a_permuted_submodule_is_told_from_what_it_permutes():
    swin = torchvision.models.swin_transformer.SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=5)
    x = torch.randn(2, 3, 64, 96)
    for path in ("features.0", "features.3", "norm"):
        with pytest.raises(ValueError, match=r"\(B, H, W, C\)"):
            check(swin, path, x)
    check(swin, "permute", x)
    check(swin, "features.0.0", x)
    with pytest.raises(ValueError, match=r"\(B, H, W, C\)"):
        check(swin, "features.0.1", x[..., :64])  # a module without weights: what tells is that the map is square


@pytest.mark.parametrize(
    "name", ["convnext_atto", "densenet121", "resnet18", "mobilenetv3_small_050", "vit_tiny_patch16_224"]
)
def test_maps_and_tokens_of_other_families_are_taken(name):
    model = timm.create_model(name, num_classes=5)
    for size in (224,) if "vit" in name else (96, 256):
        with torch.no_grad():
            _, calls = trace(model, torch.randn(1, 3, size, 224 if "vit" in name else 128))
        for path in [path for path, _ in model.named_children()]:
            for call in calls:
                if call.path == path:
                    check_layout(model, Layer(path), call.output)


def test_sequence_kept_as_channels_and_length_is_refused_with_the_remedy():
    body = nn.Sequential(nn.Conv1d(3, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
    model, x = nn.Sequential(body, nn.Flatten(), nn.Linear(8 * 10, 5)), torch.randn(2, 3, 12)
    for layer in (Layer("0"), Layer("0.0"), Layer("0.2"), Layer("0.2", input=True)):
        with pytest.raises(ValueError, match=r"kept as \(B, C, L\); pass Layer\('0.*, read=lambda output: output.mT\)"):
            check(model, layer, x)
    check(model, Layer("0", lambda output: output.mT), x)
    check(TokenNet(4), "block", images())


@pytest.mark.parametrize("side", ["student", "teacher"])
def test_distiller_refuses_it_in_either_model_at_construction(side):
    last = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Flatten(2), nn.Identity())
    last.forward = lambda x: last[0](x).permute(0, 2, 3, 1)
    models = {"student": convnet(4), "teacher": convnet(4, seed=1)} | {side: nn.Sequential(last, nn.Linear(8, 12))}
    paths = {"student": "stem", "teacher": "stem"} | {side: "1"}
    match = Match(paths["student"], paths["teacher"], nn.MSELoss(), projector=conv1x1)
    with pytest.raises(ValueError, match=r"layer 1 of Sequential gives \(2, 8, 8, 12\), .* kept as \(B, H, W, C\)"):
        Distiller(**models, matches=[match], example=(images(),))
