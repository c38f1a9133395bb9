from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.tasks.first_batch import write_first_batch
from limbeck.tasks.pictures import CELL, TITLE, colours
from limbeck.training.recipe import Budget
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
        panel = torch.tensor(np.asarray(sheet.crop((0, TITLE, CELL - 4, CELL)))).reshape(-1, 3).float()
        chosen = torch.tensor(colours(len(classes))[1 if task == "semantic" else 0]).float()
        tinted = panel - panel.mean(1, keepdim=True)
        towards = tinted @ (chosen - chosen.mean())
        assert (towards > 0).float().mean() > 0.05
