"""One small model of each family of timm: where its last map and its stages are found, and how its teacher is prepared.

    python benchmarks/families.py > benchmarks/results/families.md

What is found is compared with what the model's own forward_intermediates gives: the last map of each size, and of the
last size what the head takes. The prepared teacher is compared with the plain one on other images than it was prepared
with, channel by channel. Weights are random, with random statistics of batch norms.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import timm
import torch
import tyro
from measure import circumstances
from torch import Tensor, nn

from limbeck import Capture, Layer, prepare_teacher
from limbeck.models.features import stages, survey

LINES = (
    "beit_base_patch16_224 halonet_h1@256 test_byobnet cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32",
    "test_convnext cpubone_nano crossvit_tiny_240 csatv2 cs3darknet_focus_s cspnext_tiny davit_tiny",
    "deepseek_vit_412m@112 deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1",
    "efficientformerv2_s0 test_efficientnet efficientvim_m1 efficientvit_b0 efficientvit_m0",
    "eva02_tiny_patch14_224 fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050",
    "hardcorenas_b hgnetv2_b0 hiera_tiny_224 sam2_hiera_tiny@256 hrnet_w18_small iformer_t inception_next_atto",
    "inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small levit_128s lowformer_b0 test_mambaout",
    "coatnet_pico_rw_224 caformer_s18 gmlp_ti16_224 mobilenetv3_small_050 mobilenetv5_base@256 mobilevit_xxs",
    "mvitv2_tiny naflexvit_base_patch16_parfac_gap@224 nasnetalarge nest_tiny nextvit_small test_nfnet pit_ti_224",
    "pnasnet5large pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002 repghostnet_050 repvit_m1 res2next50 resnest14d",
    "test_resnet resnetv2_18 rexnet_100 selecsls42 legacy_seresnet18 sequencer2d_s shvit_s1 skresnet18",
    "starnet_s050 swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224",
    "tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 visformer_tiny test_vit",
    "vit_tiny_r_s16_p8_224 test_vit_relpos samvit_base_patch16_224 vitamin_small_224 volo_d1_224",
    "ese_vovnet19b_slim_dw legacy_xception xception41p xcit_nano_12_p8_224 lambda_resnet26t@128 mobilenetv2_100",
    "efficientnet_b0 resnet50_clip@224 vit_base_patch16_siglip_224 vit_pe_core_tiny_patch16_384",
    "vit_tiny_patch16_224@112x224 swin_tiny_patch4_window7_224@224x448 resnet18@96x160",
)
NAMES = " ".join(LINES).split()


@dataclass(frozen=True)
class Options:
    """Which models."""

    names: tuple[str, ...] = ()
    """Of timm, with @PIXELS or @HEIGHTxWIDTH where the smallest that a model takes is not wanted; all by default."""


COLUMNS = (
    "family",
    "model, pixels",
    "last map",
    "its shape",
    "stages, with strides",
    "found of what the model says",
    "folded, of norms",
    "differs by",
)


def main(options: Options) -> None:
    print(f"# Families of timm\n\n```\n{circumstances()}\ntimm {timm.__version__}\n```\n")
    print(str(__doc__).partition("families.md")[2].strip(), end="\n\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    for name in options.names or NAMES:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            cells = row(name)
        remarks = [str(warning.message) for warning in said if "is prepared with" in str(warning.message)]
        print("| " + " | ".join([*cells, *remarks]) + " |", flush=True)


def row(spelt: str) -> list[str]:
    name, _, pixels = spelt.partition("@")
    torch.manual_seed(0)
    try:
        model, size = build(name, pixels)
        images, others = torch.rand(2, 1, 3, *size)
    except Exception as error:
        return ["", name, f"not built: {error}"]
    family = type(model).__module__.removeprefix("timm.models.")
    cells = [family, f"{name}, {'x'.join(map(str, size))}"]
    try:
        found = stages(model, survey(model, images))
    except ValueError as error:
        return [*cells, f"refused: {error}"]
    layers = [stage.layer for stage in found]
    features = captured(model, layers, images)
    own = of_the_model(model, images)
    strides = ", ".join(f"{layer} {size[0] / features[layer].shape[2]:.3g}" for layer in layers)
    return [
        *cells,
        f"{layers[-1]}",
        "x".join(map(str, features[layers[-1]].shape[1:])),
        strides,
        agreement(list(features.values()), own),
        *prepared(model, layers[-1], images, others),
    ]


def build(name: str, pixels: str) -> tuple[nn.Module, tuple[int, int]]:
    """A model, and the height and width of its images."""
    wanted = [int(number) for number in pixels.split("x")] if pixels else []
    if len(wanted) == 2:
        size = (wanted[0], wanted[1])
        try:
            return randomized(timm.create_model(name, img_size=size)), size
        except TypeError:  # of a model for any size
            return randomized(timm.create_model(name)), size
    model = timm.create_model(name)
    own = model.default_cfg["input_size"][-1]
    side = wanted[0] if wanted else own if model.default_cfg.get("fixed_input_size") else min(own, 128)
    return randomized(model), (side, side)


def randomized(model: nn.Module) -> nn.Module:
    """In eval mode, with statistics of batch norms that a wrong fold could not hide behind."""
    for module in model.modules():
        if getattr(module, "running_var", None) is not None:
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@torch.no_grad()
def captured(model: nn.Module, layers: list[Layer], images: Tensor) -> dict[Layer, Tensor]:
    """Features of a model, which keeps no hook: a convolution with one would not be folded."""
    capture = Capture(model, layers)
    features = capture(images)[1]
    capture.remove()
    return features


@torch.no_grad()
def of_the_model(model: nn.Module, images: Tensor) -> list[Tensor]:
    """The last intermediate of each size, as the model gives them."""
    by_size: dict[tuple[int, ...], Tensor] = {}
    for feature in model.forward_intermediates(images, intermediates_only=True):
        by_size.pop(feature.shape[2:], None)
        by_size[feature.shape[2:]] = feature
    return [feature for size, feature in by_size.items() if size != (1, 1)][-4:]


def agreement(found: list[Tensor], own: list[Tensor]) -> str:
    """How far the stages found are those of the model."""
    same = [
        f.shape == o.shape and torch.allclose(f, o, atol=1e-5) for f, o in zip(found[::-1], own[::-1], strict=False)
    ]
    last = "all" if same[0] else "all, the last as its head takes it"
    if all(same[1:]):
        return last if len(found) == len(own) else f"the last {len(found)} of {len(own)}"
    return "other: " + ", ".join("x".join(map(str, feature.shape[1:])) for feature in own)


def prepared(model: nn.Module, layer: Layer, images: Tensor, others: Tensor) -> list[str]:
    """How many norms were folded, and by how much the last map then differs, of a channel's largest value."""
    norms = count(model)
    plain = captured(model, [layer], others)[layer]
    try:
        teacher = prepare_teacher(model, [layer], example=images)
    except Exception as error:
        return [f"refused: {type(error).__name__}: {error}"[:200].replace("\n", " ")]
    difference = (teacher(others)[layer] - plain).abs().amax((0, 2, 3)) / plain.abs().amax((0, 2, 3)).clamp_min(1e-6)
    return [
        f"{norms - count(teacher.model)} of {norms}",
        f"{difference.max():.1e}",
    ]


def count(model: nn.Module) -> int:
    return sum(getattr(module, "running_var", None) is not None for module in model.modules())


if __name__ == "__main__":
    main(tyro.cli(Options))
