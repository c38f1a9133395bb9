"""Pictures of what segmenters see."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torchvision.transforms.v2.functional import resize, to_pil_image
from torchvision.utils import draw_segmentation_masks

from limbeck.capture import evaluating
from limbeck.data.mask_transforms import ValMasks
from limbeck.data.masks import Masks
from limbeck.models import Inputs
from limbeck.tasks.semantic import predict

TITLE = 16  # pixels above each panel
GOLDEN = 0.618034  # turns of the hue from class to class, so that neighbours differ


@torch.no_grad()
def write_pictures(
    masks: Masks, data: ValMasks, models: Mapping[str, tuple[nn.Module, Inputs]], count: int, folder: Path
) -> None:
    """Draw the first images of a validation set side by side: image, truth, and what each model says.

    Args:
        masks: The validation set.
        data: The same as the models see it.
        models: By their titles, with the normalisation that they want.
        count: Number of images.
        folder: Gets a PNG for each, by its number and name, and ``classes.png``, which tells the colours.
    """
    folder.mkdir(parents=True, exist_ok=True)
    legend(masks.classes).save(folder / "classes.png")
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
        side_by_side(panels).save(folder / f"{index:04d}-{masks.images[index].stem}.png")


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


def side_by_side(panels: Mapping[str, Tensor]) -> Image.Image:
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
