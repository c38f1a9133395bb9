"""Weights of detectors that were trained on other classes."""

from __future__ import annotations

from torch import Tensor
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from limbeck.models.checkpoints import load_tensors, of_other_shapes, tensors_of
from limbeck.models.model import Model

COCO = tuple(FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"])  # by id: what torchvision publishes for all
STEPS = "num_batches_tracked"  # a count that frozen norms, with which detectors are published, do not have


def load_detector(model: Model, source: str, *, name: str, new_head: bool = False) -> list[str]:
    """Load weights into a detector, where the outputs of classes may be others than the model's.

    torchvision publishes detectors with an output for each of COCO's category ids up to 90, of which 80 are used. If
    every class is one of these, by its name, its outputs are taken.

    Args:
        model: As ``build_detector`` gave it.
        source: As ``load_weights`` takes it.
        name: As ``build_detector`` took it.
        new_head: Leave the outputs of other classes as they are in the model, to be trained.

    Returns:
        What is to be described of it.

    Raises:
        ValueError: The weights do not fit, or are of other classes.
    """
    classes = model.classes
    state, own = tensors_of(source, name), model.module.state_dict()
    state |= {key: value for key, value in own.items() if key.endswith(STEPS) and key not in state}
    other = of_other_shapes(state, own)
    outputs = _outputs([state[key] for key in other], [own[key] for key in other], len(classes) + 1)
    described = f"{name} from {source}"
    unknown = sorted(set(classes) - set(COCO[1:]))
    notes: list[str] = []
    fresh: list[str] = []
    if outputs == len(COCO) and not unknown:
        places = [0, *(COCO.index(each) for each in classes)]
        state |= {key: _rows_of(state[key], places, by_class="bbox_pred" in key) for key in other}
        notes = [f"{described}: of its outputs for COCO's categories, those named as the {len(classes)} classes"]
    elif outputs and new_head:
        state |= {key: own[key] for key in other}
        fresh = other
        layers = dict.fromkeys(key.rpartition(".")[0] for key in other)
        notes = [f"{described} is of {outputs - 1} classes, not {len(classes)}: {', '.join(layers)} start fresh"]
    elif outputs:
        why = f", and COCO has no {', '.join(unknown[:3])}" if outputs == len(COCO) else ""
        raise ValueError(
            f"{described} is of {outputs - 1} classes, the data has {len(classes)}{why}; train it on the data first: "
            f"limbeck train detection --model {name} --weights {source}"
        )
    load_tensors(model.module, state, source)
    model.mark_loaded(fresh=fresh)
    return notes


def _outputs(stored: list[Tensor], own: list[Tensor], outputs: int) -> int:
    """How many outputs the stored tensors are for, if that is all in which they differ from the model's; else 0."""
    counts = {
        len(theirs) * outputs / len(ours) if theirs.shape[1:] == ours.shape[1:] else 0.0
        for theirs, ours in zip(stored, own, strict=True)
    }
    count = counts.pop() if len(counts) == 1 else 0.0
    return int(count) if count.is_integer() else 0


def _rows_of(tensor: Tensor, places: list[int], *, by_class: bool) -> Tensor:
    """The rows (k * n, ...) of some of all classes: class by class, or k times all classes."""
    if by_class:
        return tensor.reshape(len(COCO), -1, *tensor.shape[1:])[places].flatten(0, 1)
    return tensor.reshape(-1, len(COCO), *tensor.shape[1:])[:, places].flatten(0, 1)
