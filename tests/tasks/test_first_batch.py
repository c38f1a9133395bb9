from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.tasks import task_kind
from limbeck.tasks.classification.mixing import MixedImages, Mixing
from limbeck.tasks.detection.transforms import TrainObjects, augmentation
from limbeck.tasks.first_batch import write_first_batch
from limbeck.tasks.pictures import CELL, PANEL, TITLE, colours
from limbeck.training.recipe import Budget
from tests.tasks.detection.test_transforms import annotated, objects_of
from tests.tasks.test_workers import datasets  # noqa: F401


def sheet_of(data, task, classes, file, batch_size=1):
    card = {"task": task, "classes": classes}
    recipe = SimpleNamespace(train_data=data, budget=Budget(batch_size=batch_size), card=card)
    write_first_batch(recipe, file)
    return Image.open(file).convert("RGB")


@pytest.mark.parametrize(
    ("place", "task", "classes", "batch_size", "across", "down"),
    [
        (0, "classification", ["cat", "dog"], 3, 2, 2),
        (1, "semantic", ["road", "car"], 1, 1, 1),
        (2, "instance", ["cell"], 1, 1, 1),
    ],
)
def test_the_first_batch_of_every_task_is_drawn_with_its_truth(
    datasets,  # noqa: F811
    tmp_path,
    place,
    task,
    classes,
    batch_size,
    across,
    down,
):
    data = datasets[0][place]
    sheet = sheet_of(data, task, classes, tmp_path / "new" / "first_batch.png", batch_size)
    assert sheet.width > across * CELL
    assert sheet.height == down * (CELL + TITLE)
    if task != "classification":  # a pixel of the panel has the colour of a class, which the grey image has nowhere
        panel = torch.tensor(np.asarray(sheet.crop((0, TITLE, PANEL, CELL)))).reshape(-1, 3).float()
        chosen = torch.tensor(colours(len(classes))[1 if task == "semantic" else 0]).float()
        tinted = panel - panel.mean(1, keepdim=True)
        towards = tinted @ (chosen - chosen.mean())
        assert (towards > 0).float().mean() > 0.05


def test_images_of_classes_are_called_by_their_files_too(datasets):  # noqa: F811
    data, kind = datasets[0][0], task_kind("classification")
    assert [title for title, _ in kind.batch_panels(data, [(0, 1), (0, 0)])] == ["dog: image.png", "cat: image.png"]
    mixed = MixedImages(data, Mixing(mixup=0.2), classes=2)
    told = set()
    for key in [(epoch, 0) for epoch in range(20)]:
        cat, dog = mixed[key]["target"].tolist()
        ((title, _),) = kind.batch_panels(mixed, [key])
        both = f"{cat:.0%} cat + {dog:.0%} dog" if cat > dog else f"{dog:.0%} dog + {cat:.0%} cat"
        assert title == f"{both if cat * dog else 'cat'}: image.png"
        told.add(title.split()[1])
    assert "dog" in told  # which the label of the image does not tell


@pytest.mark.parametrize("size", [(60, 90), (900, 1350)], ids=["small", "large"])
def test_objects_are_drawn_at_the_size_at_which_the_sheet_shows_them(tmp_path, size):
    """A frame is two pixels wide on the sheet, and a name of ten, whatever the size of the image."""
    scale = size[0] // 60
    image = annotated(tmp_path, [[side * scale for side in (8, 12, 40, 50)]], size=size)
    data = TrainObjects(objects_of(image), augmentation([size[0]], 5000, flip=0), seed=0, masks=False)
    sheet = sheet_of(data, "detection", data.objects.classes, tmp_path / "sheet.png")
    pixels = np.asarray(sheet.crop((0, TITLE, PANEL, CELL))).astype(int)
    frame = np.abs(pixels - colours(3)[0]).sum(2) < 30
    shown = (PANEL) / 90
    rows, columns = np.nonzero(frame)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert np.abs(found - shown * np.array([8, 12, 40, 50])).max() < 3
    assert 1 <= frame[int(31 * shown), : int(24 * shown)].sum() <= 3
