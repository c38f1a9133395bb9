import shutil

import pytest
import torch
from PIL import Image

from limbeck.data.contents import contents, hashed
from limbeck.tasks.classification.load import load_images


@pytest.fixture
def folder(tmp_path):
    for part in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for number in range(3):
                image = Image.new("RGB", (8, 8), (200 * label, number, 0))
                image.save(tmp_path / "data" / part / name / f"{number}.png")
    return tmp_path / "data"


def of(folder):
    return list(contents(*load_images(str(folder))).values())


def test_data_may_be_moved(folder, tmp_path):
    before = of(folder)
    assert of(shutil.move(folder, tmp_path / "elsewhere")) == before


@pytest.mark.parametrize("change", ["gone", "new", "other label", "other pixels"])
def test_what_changes_in_a_part_is_seen_there(folder, change):
    before = of(folder)
    image = folder / "train" / "cat" / "0.png"
    if change == "gone":
        image.unlink()
    elif change == "new":
        shutil.copy(image, image.with_name("9.png"))
    elif change == "other label":
        image.rename(folder / "train" / "dog" / "9.png")
    else:
        Image.effect_noise((8, 8), 50).save(image)
    after = of(folder)
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_tensors_and_words_count_too():
    facts = [torch.zeros(2), "cat"]
    others = [[torch.ones(2), "cat"], [torch.zeros(2), "dog"], [torch.zeros(3), "cat"]]
    assert hashed(facts) == hashed(facts)
    assert len({hashed(each) for each in [facts, *others]}) == 4
