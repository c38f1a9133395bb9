"""Pictures of what segmenters and detectors see."""

from __future__ import annotations

import colorsys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from limbeck.core.modules import evaluating
from limbeck.models.build import Inputs
from limbeck.tasks.detection.dataset import Objects
from limbeck.tasks.detection.task import in_pixels_of, masks_at
from limbeck.tasks.detection.transforms import ValObjects, drawn
from limbeck.tasks.semantic.dataset import Masks
from limbeck.tasks.semantic.task import predict
from limbeck.tasks.semantic.transforms import ValMasks

Panels = Mapping[str, Tensor]  # (3, H, W) uint8 by title
Models = Mapping[str, tuple[nn.Module, Inputs]]  # by title, with the normalisation that they want
TITLE = 16  # pixels above each panel
GOLDEN = 0.618034  # turns of the hue from class to class, so that neighbours differ


def write_pictures(sheets: Iterable[tuple[str, Panels]], classes: list[str], folder: Path) -> None:
    """Draw images side by side: an image, the truth, and what each model says.

    Args:
        sheets: For each image its name, and panels (3, H, W) uint8 by title.
        classes: Their names.
        folder: Gets a PNG for each image, by its number and name, and ``classes.png``, which tells the colours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    legend(classes).save(folder / "classes.png")
    for index, (name, panels) in enumerate(sheets):
        side_by_side(panels).save(folder / f"{index:04d}-{name}.png")


@torch.no_grad()
def sheets_of_masks(masks: Masks, data: ValMasks, models: Models, count: int) -> Iterator[tuple[str, Panels]]:
    """What segmenters say of the first images of a validation set, and of the same as the models see it."""
    for index in range(min(count, len(masks))):
        image, truth = masks.read(index)
        size = tuple(truth.shape[1:])
        seen = data[index]["image"]
        panels = {"image": image, "truth": overlay(image, truth[0], len(masks.classes))}
        for title, (model, inputs) in models.items():
            device = next(model.parameters()).device
            with evaluating(model):
                said = predict(model, seen.unsqueeze(0).to(device), inputs, size)[0]
            panels[title] = overlay(image, said.cpu(), len(masks.classes))
        yield masks.images[index].stem, panels


@torch.no_grad()
def sheets_of_objects(
    objects: Objects, data: ValObjects, models: Models, count: int, score: float
) -> Iterator[tuple[str, Panels]]:
    """What detectors say of the first images of a validation set, where they are as sure as ``score``."""
    for index in range(min(count, len(objects))):
        image, annotated = objects.read(index), objects.images[index]
        seen = data[index]["image"]
        outlines = drawn(annotated, torch.ones_like(annotated.crowd)).bool() if annotated.outlines else None
        panels = {"image": image, "truth": outlined(image, annotated.boxes, annotated.labels, objects, outlines)}
        for title, (model, _) in models.items():
            device = next(model.parameters()).device
            with evaluating(model):
                said = {name: value.cpu() for name, value in model([seen.to(device).float() / 255])[0].items()}
            sure = said["scores"] >= score
            boxes = in_pixels_of(annotated.size, seen.shape[1:], said["boxes"][sure])
            masks = masks_at(annotated.size, said["masks"][sure]) if "masks" in said else None
            panels[title] = outlined(image, boxes, said["labels"][sure] - 1, objects, masks)
        yield annotated.path.stem, panels


def outlined(image: Tensor, boxes: Tensor, labels: Tensor, objects: Objects, masks: Tensor | None) -> Tensor:
    """An image (3, H, W) uint8 with boxes (n, 4), and masks (n, H, W), in the colours of their classes."""
    if not len(boxes):
        return image
    palette = colours(len(objects.classes))
    chosen = [palette[label] for label in labels.tolist()]
    if masks is not None:
        image = draw_segmentation_masks(image, masks, alpha=0.5, colors=chosen)
    framed: Tensor = draw_bounding_boxes(image, boxes, colors=chosen, width=2)
    return framed


def overlay(image: Tensor, mask: Tensor, classes: int, opacity: float = 0.6) -> Tensor:
    """An image (3, H, W) uint8 with each class of a mask (H, W) in its colour; what has none stays as it is."""
    each = mask == torch.arange(classes).view(-1, 1, 1)
    drawn: Tensor = draw_segmentation_masks(image, each, alpha=opacity, colors=colours(classes))
    return drawn


def colours(classes: int) -> list[tuple[int, int, int]]:
    """A colour for each class: the same for the same number, whatever the image."""
    found = []
    for index in range(classes):
        red, green, blue = colorsys.hsv_to_rgb(index * GOLDEN % 1, 0.9 if index % 2 else 0.6, 1.0)
        found.append((round(255 * red), round(255 * green), round(255 * blue)))
    return found


def side_by_side(panels: Panels) -> Image.Image:
    """Panels (3, H, W) in a row, each below its title."""
    height, width = next(iter(panels.values())).shape[1:]
    sheet = Image.new("RGB", (width * len(panels), height + TITLE), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (title, panel) in enumerate(panels.items()):
        shown = panel if panel.shape[1:] == (height, width) else resize(panel, [height, width])
        sheet.paste(to_pil_image(shown), (place * width, TITLE))
        letters = max(1, int(width / draw.textlength("n")) - 1)
        draw.text((place * width + 4, 2), title[-letters:], fill="black")  # of a path, the end tells most
    return sheet


def legend(classes: list[str]) -> Image.Image:
    sheet = Image.new("RGB", (240, TITLE * len(classes)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (name, colour) in enumerate(zip(classes, colours(len(classes)), strict=True)):
        draw.rectangle((2, place * TITLE + 2, 22, (place + 1) * TITLE - 2), fill=colour)
        draw.text((28, place * TITLE + 2), name, fill="black")
    return sheet
