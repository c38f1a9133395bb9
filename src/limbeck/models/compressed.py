"""Networks with factors in the place of layers, from the folder of a run of ``limbeck compress``."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from limbeck.compress.forms import rebuild
from limbeck.models.checkpoints import load_weights
from limbeck.models.run_folder import RunFolder

LOADER = '''\
"""Load this network without limbeck: model = load(the network that was compressed, as its own library makes it)."""
import json
from pathlib import Path

from safetensors import safe_open
from torch import nn


def load(model, file=Path(__file__).with_name("student.safetensors")):
    with safe_open(file, "pt") as tensors:
        layers = json.loads(tensors.metadata()["limbeck"])["compressed"]
        for path, parts in layers.items():
            model.set_submodule(path, nn.Sequential(*(getattr(nn, kind)(**given) for kind, given in parts)))
        model.load_state_dict({name: tensors.get_tensor(name) for name in tensors.keys()})
    return model.eval()
'''


def load_compressed(model: nn.Module, run: str | Path) -> nn.Module:
    """Make the network of a run of ``limbeck compress`` of the one that was compressed, in place.

    Args:
        model: As its own library makes it, such as ``timm.create_model("resnet18", num_classes=10)``.
        run: Folder of the run.

    Raises:
        ValueError: The run holds no compressed network, or one of another model.
    """
    folder = RunFolder(Path(run))
    if not folder.has_student():
        raise ValueError(f"{folder} has no student: name the folder of a run of limbeck compress")
    structure = folder.card().get("compressed")
    if structure is None:
        raise ValueError(f"the student of {folder} is not compressed; its own library loads {folder.student}")
    try:
        rebuild(model, structure)
    except AttributeError as error:
        raise ValueError(f"{type(model).__name__} is not what {folder} was compressed from: {error}") from None
    load_weights(model, str(folder.student))
    return model
