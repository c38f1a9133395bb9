"""README.md of a run folder: what the student is, as the Hugging Face hub takes a model's card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.commands.record import options
from limbeck.models.build import FILE, RUN, source_of
from limbeck.models.run_folder import MARK, RunFolder
from limbeck.tasks.kind import OnHub
from limbeck.training.checkpoint import write_atomically

LIBRARIES = {"hf": "transformers", "smp": "segmentation-models-pytorch"}  # where the word is another


def write_model_card(run: RunFolder, hub: OnHub, record: Mapping[str, Any]) -> None:
    """Write the card of a run's best student, unless somebody else wrote one.

    Args:
        run: A finished run.
        hub: What the hub is told of its task.
        record: As in ``recipe.json``.
    """
    if run.has_readme_of_others():
        return
    write_atomically(run.readme, model_card(run.path.resolve().name, run.card(), hub, record).encode())


def model_card(name: str, card: Mapping[str, Any], hub: OnHub, record: Mapping[str, Any]) -> str:
    """The text of a card.

    Args:
        name: Of the model.
        card: As in the file of the student.
        hub: What the hub is told of its task.
        record: As in ``recipe.json``.
    """
    given, methods = options(record["arguments"]), record.get("uses", [])
    data, teacher = Path(given.get("data") or "data of its own").name, given.get("teacher")
    taught = f"beside the teacher `{_short(teacher)}`" if teacher else "alone"
    by = f" by {', '.join(methods)}" if methods else ""
    metrics = {metric: round(value, 4) for metric, value in card["metrics"].items()}
    rows = "\n".join(f"| {metric} | {value:.4f} |" for metric, value in metrics.items())
    classes = ", ".join(card["classes"][:20]) + ", ..." * (len(card["classes"]) > 20)
    return f"""---
{_header(name, card, hub, data, metrics, methods)}
---
{MARK}

# {name}

`{_short(card["model"])}` for {len(card["classes"])} classes, trained on `{data}` {taught}{by}, with
limbeck {record["versions"]["limbeck"]} and seed {given.get("seed")}. Every
argument, version and hash is in `recipe.json`.

| on the validation images | `student.safetensors` |
|---|---|
{rows}

That is one run: an interval takes several seeds. The classes are {classes}. Images are RGB in [0, 1], less the mean
{list(card["mean"])}, over the standard deviation {list(card["std"])}.{_resized(card)}

## How to load it

```python
import limbeck

limbeck.load(".").predict("photo.jpg")  # with its preprocessing
```
{_loading(card, hub)}
`limbeck export . student.onnx` makes of it an ONNX with its normalisation inside. To publish it, say its licence above
and `hf upload NAME . --exclude "checkpoints/*"`.
"""


def _header(
    name: str, card: Mapping[str, Any], hub: OnHub, data: str, metrics: Mapping[str, float], methods: list[str]
) -> str:
    """YAML, of which json is a part."""
    word = source_of(card["model"])[0]
    best = next(iter(metrics))
    result = {
        "task": {"type": hub.task},
        "dataset": {"name": data, "type": data},
        "metrics": [{"name": metric, "type": metric, "value": value} for metric, value in metrics.items()],
    }
    fields = {
        "license": "unknown",
        "library_name": LIBRARIES.get(word, word if word in hub.loading else "limbeck"),
        "pipeline_tag": hub.task,
        "tags": ["limbeck", "knowledge-distillation", *methods] if methods else ["limbeck"],
        "datasets": [data],
        "metrics": [best],
        "model-index": [{"name": name, "results": [result]}],
    }
    lines = [f"{field}: {json.dumps(value)}" for field, value in fields.items()]
    lines[0] += "  # yours to say: that of the data and of the teacher's weights may bind you"
    return "\n".join(lines)


def _loading(card: Mapping[str, Any], hub: OnHub) -> str:
    word, name = source_of(card["model"])
    if word not in hub.loading:
        return ""
    made = hub.loading[word].format(name=name, classes=len(card["classes"]))
    return f"""
Without limbeck:

```python
from safetensors.torch import load_file
{made}
model.load_state_dict(load_file("student.safetensors"))
model.eval()
```
"""


def _resized(card: Mapping[str, Any]) -> str:
    """How a classifier's images are brought to its size; others take them as they are."""
    first, size = card.get("load_size"), card.get("size")
    if first is None:
        return ""
    then = "" if size in (None, first) else f", which is brought to {size}"
    return f" Before that, the shorter side is brought to {first} pixels and the middle square taken{then}."


def _short(model: str) -> str:
    """The name of a model without folders, which are of this machine alone."""
    word, name = source_of(model)
    if word in (RUN, FILE):
        return Path(name).name
    return f"hf:{Path(name).name}" if word == "hf" else model
