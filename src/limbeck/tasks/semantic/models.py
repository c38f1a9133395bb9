"""Segmentation models by name."""

from __future__ import annotations

import json
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from torch import nn

from limbeck.models.build import Inputs
from limbeck.models.checkpoints import load_weights
from limbeck.models.files import function_in
from limbeck.models.run_folder import RunFolder
from limbeck.tasks.semantic.parts import LOOKED_OVER_AT


def build_segmenter(name: str, classes: list[str]) -> tuple[nn.Module, Inputs]:
    """A segmenter by name, with the inputs it expects; without trained weights, but for a run folder.

    Args:
        name: ``smp:ARCH/ENCODER`` (any encoder of segmentation_models_pytorch; timm's as ``tu-NAME``),
            ``torchvision:NAME``, ``hf:FOLDER`` (a configuration, with weights where the folder has them),
            ``FILE.py:FUNCTION`` (called with ``num_classes=``), or a run folder, which brings its weights.
        classes: Names of the classes, in the order of the outputs.

    Raises:
        ValueError: There is no such model, or a run folder's classes are others.
    """
    kind, _, rest = name.rpartition(":")
    if kind == "smp":
        return _from_smp(rest, len(classes))
    if kind == "torchvision":
        return _from_torchvision(rest, len(classes)), Inputs(LOOKED_OVER_AT)
    if kind == "hf":
        return _from_hf(Path(rest), classes)
    if kind.endswith(".py"):
        return function_in(Path(kind), rest)(num_classes=len(classes)), Inputs(LOOKED_OVER_AT)
    if RunFolder(Path(name)).has_student():
        return _from_run(RunFolder(Path(name)), classes)
    raise ValueError(
        f"no segmenter {name!r}: write smp:ARCH/ENCODER, torchvision:NAME, hf:FOLDER, FILE.py:FUNCTION, or the folder "
        "of a finished run"
    )


def is_segmenter(name: str) -> bool:
    """Whether a name is that of a segmenter, and of nothing else."""
    kind, _, rest = name.rpartition(":")
    if kind == "torchvision":
        return rest in _known_to_torchvision()
    run = RunFolder(Path(name))
    return kind in ("smp", "hf") or (run.has_student() and run.card()["task"] == "semantic")


def _from_smp(name: str, classes: int) -> tuple[nn.Module, Inputs]:
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
        model: Any = smp.create_model(arch, encoder, encoder_weights=None, classes=classes)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"smp:{name} cannot be built: {error}") from None
    inputs = Inputs(LOOKED_OVER_AT, multiple=model.encoder.output_stride)
    if encoder.startswith("tu-"):
        config = timm.get_pretrained_cfg(encoder.removeprefix("tu-"))
        inputs = replace(inputs, mean=tuple(config.mean), std=tuple(config.std))
    return model, inputs


def _is_architecture(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "check_input_shape") and kind.__module__.count(".") > 1


def _from_torchvision(name: str, classes: int) -> nn.Module:
    from torchvision import models

    if name not in _known_to_torchvision():
        raise ValueError(f"torchvision has no segmenter {name!r}; it has {', '.join(_known_to_torchvision())}")
    auxiliary = {} if name.startswith("lraspp") else {"aux_loss": True}
    model: nn.Module = models.get_model(name, weights=None, weights_backbone=None, num_classes=classes, **auxiliary)
    return model


def _known_to_torchvision() -> list[str]:
    from torchvision import models

    known: list[str] = models.list_models(module=models.segmentation)
    return known


def _from_hf(folder: Path, classes: list[str]) -> tuple[nn.Module, Inputs]:
    try:
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
    except ImportError:
        raise ValueError("hf: models come with transformers: pip install 'limbeck[hf]'") from None
    if not (folder / "config.json").is_file():
        raise ValueError(f"no {folder / 'config.json'}; hf: takes the folder of a model, or of its configuration alone")
    names = dict(enumerate(classes))
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise ValueError(f"the weights in {folder} are no safetensors, so loading them could run code: refused")
    if any(folder.glob("*.safetensors")):
        check_classes(folder, AutoConfig.from_pretrained(folder, local_files_only=True).id2label, classes)
        model: nn.Module = AutoModelForSemanticSegmentation.from_pretrained(
            folder, ignore_mismatched_sizes=True, use_safetensors=True, local_files_only=True, **labels
        )
    else:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, **labels)
        model = AutoModelForSemanticSegmentation.from_config(config)  # type: ignore[no-untyped-call]
    return model, normalised_as_in(folder, Inputs(LOOKED_OVER_AT))


def normalised_as_in(folder: Path, inputs: Inputs) -> Inputs:
    """These inputs with the mean and standard deviation that a folder of transformers says, where it does."""
    if not (card := folder / "preprocessor_config.json").is_file():
        return inputs
    stored = json.loads(card.read_text())
    if stored.get("do_normalize", True):
        mean, std = stored.get("image_mean", inputs.mean), stored.get("image_std", inputs.std)
    else:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return replace(inputs, mean=tuple(mean), std=tuple(std))


def check_classes(folder: Path, stored: dict[int, str], classes: list[str]) -> None:
    """As many classes by other names would pass unnoticed; another number of them gets a new classifier."""
    names = [stored[index] for index in sorted(stored)]
    named = not names[0].startswith("LABEL_")  # as transformers calls what nobody named
    if named and len(names) == len(classes) and names != classes:
        raise ValueError(f"{folder} knows the classes {names[:5]}..., the data has {classes[:5]}...")


def _from_run(run: RunFolder, classes: list[str]) -> tuple[nn.Module, Inputs]:
    card = run.card(classes)
    model, inputs = build_segmenter(card["model"], card["classes"])
    load_weights(model, str(run.student))
    return model, inputs
