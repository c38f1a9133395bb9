"""What is the same for all models in folders of transformers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from limbeck.data.inputs import Inputs
from limbeck.models.build import check_classes


def config_of(folder: Path, classes: list[str]) -> tuple[Any, dict[int, str]]:
    """The configuration in a folder, for these classes, and the names of those that it was made for; no download.

    Raises:
        ValueError: There is none, it cannot be read, or the weights beside it could hold code.
    """
    try:
        from transformers import AutoConfig
    except ImportError:
        raise ValueError("hf: models come with transformers: pip install 'limbeck[hf]'") from None
    if not (folder / "config.json").is_file():
        raise ValueError(f"no {folder / 'config.json'}; hf: takes the folder of a model, or of its configuration alone")
    if (pickles := sorted(folder.glob("*.bin"))) and not is_trained(folder):
        raise ValueError(
            f"{pickles[0]} is no safetensors, so loading it could run code: refused; load the model where you trust "
            "it, and write it with save_pretrained"
        )
    names = dict(enumerate(classes))
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    try:
        stored = AutoConfig.from_pretrained(folder, local_files_only=True).id2label
        return AutoConfig.from_pretrained(folder, local_files_only=True, **labels), stored
    except Exception as error:  # also of types that are not builtin
        raise ValueError(f"{folder / 'config.json'} cannot be read: {error}") from None


def is_trained(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def check_stored_classes(folder: Path, stored: dict[int, str], classes: list[str]) -> None:
    """As many classes by other names would pass unnoticed; another number of them gets a new classifier."""
    names = [stored[index] for index in sorted(stored)]
    named = not names[0].startswith("LABEL_")  # as transformers calls what nobody named
    if named and len(names) == len(classes):
        check_classes(str(folder), names, classes)


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


def kind_of(folder: Path) -> str:
    """What a folder's model is for: ``"detection"``, ``"semantic"``, or empty where it is neither."""
    from transformers import MODEL_FOR_OBJECT_DETECTION_MAPPING, MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING

    config, _ = config_of(folder, ["a", "b"])
    if type(config) in MODEL_FOR_OBJECT_DETECTION_MAPPING:
        return "detection"
    return "semantic" if type(config) in MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING else ""
