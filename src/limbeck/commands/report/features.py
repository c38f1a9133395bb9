"""What teacher and student make of the same images, and how much alike that is."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable

import altair as alt
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from limbeck.commands.report.charts import BLANK, COLOURS, heatmap, steps_apart
from limbeck.commands.report.parts import Chart, Part, Pictures, Section
from limbeck.commands.report.runs import Comparison, Run, without_common_words
from limbeck.data.order import evenly

MATCHES = 4  # that are drawn
COLUMNS = {"teacher": "teacher", "before": "student, before", "after": "student, after"}


def pictures(comparison: Comparison) -> Section:
    """Features as colours, a row an image."""
    run, title = recorded(comparison), "Features"
    if run is None:
        return Section(title, "These runs recorded no features of validation images.")
    with safe_open(run.folder.features, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        notes = file.metadata() or {}
    places = sorted({int(name.split("/")[1]) for name in tensors if name.startswith("teacher/")})
    drawn = [places[index] for index in evenly(len(places), MATCHES)] if places else []
    parts: list[Part] = [_drawn(place, tensors, notes[f"match/{place}"]) for place in drawn]
    if not parts:
        return Section(title, "The teacher's features of these matches are no maps, so they are not drawn.")
    about = (
        f"Of {run.name}, on validation images. The three directions along which the teacher's features vary most "
        "(principal components) are red, green and blue; the student is shown on the same axes, through its projector "
        "where it has one, before the training and after."
    )
    if not any(name.startswith("after/") for name in tensors):
        about += " This run is not finished, so there is no after yet."
    return Section(title, about, parts)


def similarity(comparison: Comparison) -> Section:
    """Linear CKA before and after."""
    run, title = recorded(comparison), "Similarity of layers"
    found = similarities(run) if run is not None else {}
    if run is None or not found:
        return Section(title, "These runs recorded no maps or tokens that can be compared.")
    matched = {(match["student"].split(" ")[0], match["teacher"].split(" ")[0]) for match in run.matches}
    students, teachers = (short(pair[side] for pair in found) for side in (0, 1))
    rows = [
        {"name": f"{students[one]} to {teachers[other]}", **values}
        for (one, other), values in found.items()
        if len(values) == 2 and ((one, other) in matched or len(found) == 1)
    ]
    parts: list[Part] = []
    if rows:
        chart = steps_apart(rows, COLOURS[0], "linear CKA (1: alike but for rotation and scale)")
        parts.append(Chart("Student layer to teacher layer", chart, "Hollow: before the training. Full: after."))
    if len(students) > 1 and len(teachers) > 1:
        for when in ("before", "after"):
            cells = [
                {"line": students[one], "column": teachers[other], "value": values[when]}
                for (one, other), values in found.items()
                if when in values
            ]
            scale = alt.Scale(domain=[0, 1], range=[BLANK, COLOURS[0]])
            names = list(teachers.values()), list(students.values())
            drawn = heatmap(cells, *names, ("teacher", "student", "linear CKA"), form=".2f", scale=scale)
            if cells:
                parts.append(Chart(f"{when[0].upper()}{when[1:]} the training", drawn))
    about = (
        f"Linear CKA (arXiv 1905.00414) between features of {run.name} and its teacher's, over the positions of the "
        "same images, without any projector."
    )
    return Section(title, about, parts)


def similarities(run: Run) -> dict[tuple[str, str], dict[str, float]]:
    """Student layer, teacher layer: CKA before and after."""
    with safe_open(run.folder.features, "pt") as file:
        notes = file.metadata() or {}
    found: dict[tuple[str, str], dict[str, float]] = {}
    for name, value in sorted(notes.items(), key=lambda item: by_number(item[0])):  # the file keeps no order
        if name.startswith("cka/"):
            _, when, layers = name.split("/", 2)
            one, _, other = layers.partition("/to/")
            found.setdefault((one, other), {})[when] = float(value)
    return found


def by_number(name: str) -> list[str | int]:
    """What names are sorted by so that layer 10 comes after layer 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def short(layers: Iterable[str]) -> dict[str, str]:
    """What layers are called beside each other: without the path that they share."""
    names = list(dict.fromkeys(layers))
    return dict(zip(names, without_common_words(names), strict=True))


def recorded(comparison: Comparison) -> Run | None:
    """The first run that has features, one with those after the training where there is one."""
    runs = [run for run in comparison.runs if run.folder.features.is_file()]
    return next((run for run in runs if run.folder.is_finished()), runs[0] if runs else None)


def _drawn(place: int, tensors: dict[str, Tensor], match: str) -> Pictures:
    indices = sorted(int(name.split("/")[2]) for name in tensors if name.startswith(f"teacher/{place}/"))
    every = torch.cat([tensors[f"teacher/{place}/{index}"].float().flatten(1) for index in indices], 1)
    low, high = (torch.quantile(every, share, dim=1)[:, None, None] for share in (0.02, 0.98))
    shown = {name: title for name, title in COLUMNS.items() if f"{name}/{place}/{indices[0]}" in tensors}
    has_images = f"image/{indices[0]}" in tensors
    rows = []
    for index in indices:
        maps = [tensors[f"{name}/{place}/{index}"].float() for name in shown]
        colours = [((each - low) / (high - low).clamp(min=1e-9)).clamp(0, 1) * 255 for each in maps]
        rows.append([*([uri(tensors[f"image/{index}"])] if has_images else []), *map(uri, colours)])
    return Pictures(match, [*(["image"] if has_images else []), *shown.values()], rows)


def uri(image: Tensor) -> str:
    """An image (3, H, W) in [0, 255] as a data URI."""
    buffer = io.BytesIO()
    Image.fromarray(image.round().to(torch.uint8).permute(1, 2, 0).numpy()).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
