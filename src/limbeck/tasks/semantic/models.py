"""Segmentation models by name."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.data.inputs import Inputs
from limbeck.models import huggingface
from limbeck.models.build import FILE, Source, build
from limbeck.models.files import inputs_of, model_at
from limbeck.models.model import Model
from limbeck.tasks.semantic.places import before_classifier, find_encoder, logits_of


def build_segmenter(name: str, classes: list[str], size: int | None = None) -> Model:
    """A segmenter by name; see ``limbeck.models.build.build``. It takes images of any size."""
    return build(name, classes, SOURCES, tasks=("semantic",))


def _segmenter(module: nn.Module, inputs: Inputs, classes: list[str]) -> Model:
    encoder = find_encoder(module)
    return Model(module, inputs, classes, encoder, read_scores=logits_of, find_last_map=before_classifier)


def _from_smp(name: str, classes: list[str], size: int | None) -> Model:
    try:
        import segmentation_models_pytorch as smp
        import timm
    except ImportError:
        raise ValueError("smp: models come with segmentation_models_pytorch: pip install 'limbeck[smp]'") from None
    arch, _, encoder = name.partition("/")
    archs = {name.lower(): name for name, kind in vars(smp).items() if _is_architecture(kind)}
    if arch.lower() not in archs:
        nearest = get_close_matches(arch.lower(), archs, n=3)
        shown = ", ".join(archs[near] for near in nearest) or ", ".join(archs.values())
        raise ValueError(f"no segmenter smp:{name}: write smp:ARCH/ENCODER; architectures: {shown}")
    known = [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]
    if encoder.partition(".")[0] not in known:  # after a dot: which of timm's weights
        nearest = get_close_matches(encoder, known, n=3)
        shown = f"nearest: {', '.join(nearest)}" if nearest else "such as resnet18, or tu-NAME for a model of timm"
        raise ValueError(f"no encoder {encoder!r} in smp:{name}: write smp:{archs[arch.lower()]}/ENCODER, {shown}")
    try:
        module: Any = smp.create_model(arch, encoder, encoder_weights=None, classes=len(classes))
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"smp:{name} cannot be built: {error}") from None
    inputs = Inputs(multiple=module.encoder.output_stride)
    if encoder.startswith("tu-"):
        config = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
        inputs = replace(inputs, mean=tuple(config.mean), std=tuple(config.std))
    return _segmenter(module, inputs, classes)


def is_smp(name: str) -> bool:
    """Whether it is written like one, which is enough: no other source has a form like it."""
    return "/" in name and not Path(name).exists()


def _is_architecture(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "check_input_shape") and kind.__module__.count(".") > 1


def _from_torchvision(name: str, classes: list[str], _: int | None) -> Model:
    from torchvision import models

    if not is_torchvision(name):
        known = models.list_models(module=models.segmentation)
        raise ValueError(f"torchvision has no segmenter {name!r}; it has {', '.join(known)}")
    options = {} if name.startswith("lraspp") else {"aux_loss": True}
    module: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=len(classes), **options)
    return _segmenter(module, Inputs(), classes)


def is_torchvision(name: str) -> bool:
    from torchvision import models

    return name in models.list_models(module=models.segmentation)


def _from_hf(name: str, classes: list[str], _: int | None) -> Model:
    folder = Path(name)
    config, stored = huggingface.config_of(folder, classes)
    from transformers import AutoModelForSemanticSegmentation

    if huggingface.is_trained(folder):
        huggingface.check_stored_classes(folder, stored, classes)
        module: nn.Module = AutoModelForSemanticSegmentation.from_pretrained(
            folder, config=config, ignore_mismatched_sizes=True, use_safetensors=True, local_files_only=True
        )
    else:
        module = AutoModelForSemanticSegmentation.from_config(config)  # type: ignore[no-untyped-call]
    return _segmenter(module, huggingface.normalised_as_in(folder, Inputs()), classes)


def is_hf(name: str) -> bool:
    return Path(name).is_dir() and huggingface.kind_of(Path(name)) == "semantic"


def _from_file(name: str, classes: list[str], _: int | None) -> Model:
    module = model_at(name, len(classes))
    return _segmenter(module, inputs_of(module, name), classes)


SOURCES = {
    "smp": Source("smp:ARCH/ENCODER", _from_smp, is_smp),
    "torchvision": Source("torchvision:NAME", _from_torchvision, is_torchvision),
    "hf": Source("hf:FOLDER", _from_hf, is_hf),
    FILE: Source("FILE.py:FUNCTION", _from_file),
}
