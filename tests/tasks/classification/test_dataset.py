import pytest
import torch
from PIL import Image

from limbeck.tasks.classification.dataset import first_of_each_class, load_images, read_folder, read_unlabelled, split


def paint(path, colour=(200, 10, 10), size=(12, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                paint(tmp_path / part / name / f"{number}.png")
    return tmp_path


def test_a_folder_with_train_and_val_gives_classes_in_alphabetical_order(folder):
    train, val = load_images(str(folder))
    assert train.classes == val.classes == ["cat", "dog"]
    assert list(train.labels) == [0] * 4 + [1] * 4
    assert len(val) == 4
    assert train.read(0).shape == (3, 10, 12)
    assert train.read(0).dtype == torch.uint8
    assert train.read(0)[:, 0, 0].tolist() == [200, 10, 10]


def test_one_folder_is_split_by_seed_within_every_class(folder):
    train, val = load_images(str(folder / "train"), seed=3)
    again, _ = load_images(str(folder / "train"), seed=3)
    assert [train.labels.count(label) for label in (0, 1)] == [3, 3]
    assert [val.labels.count(label) for label in (0, 1)] == [1, 1]
    assert not set(train.items) & set(val.items)
    assert train.items == again.items


def test_a_corrupt_image_is_an_error_that_names_the_file(folder):
    bad = folder / "train" / "cat" / "0.png"
    bad.write_bytes(bad.read_bytes()[:40])
    train, _ = load_images(str(folder))
    with pytest.raises(ValueError, match=r"cat/0\.png cannot be read as an image.*--skip-bad-images"):
        train.read(0)


def test_bad_images_can_be_skipped_and_are_counted(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    train, _ = load_images(str(folder), skip_bad=True)
    assert len(train) == 7
    assert any("skipped 1 unreadable images: 0.png" in note for note in train.notes)


def test_files_that_are_no_images_are_counted(folder):
    (folder / "train" / "cat" / "notes.txt").write_text("")
    assert any("1 files are no images" in note for note in load_images(str(folder))[0].notes)


def test_an_empty_class_names_its_folder(folder):
    (folder / "train" / "emu").mkdir()
    with pytest.raises(ValueError, match=r"train/emu holds no readable image"):
        load_images(str(folder))


def test_empty_missing_and_flat_folders_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        load_images(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="has no class folders"):
        load_images(str(tmp_path))
    with pytest.raises(ValueError, match="holds no image"):
        read_unlabelled(tmp_path, ["cat"])
    with pytest.raises(ValueError, match="no folder"):
        read_unlabelled(tmp_path / "nothing", ["cat"])


def test_classes_that_differ_between_train_and_val_are_named(folder):
    paint(folder / "val" / "emu" / "0.png")
    with pytest.raises(ValueError, match=r"not the same classes; only one has \['emu'\]"):
        load_images(str(folder))


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    paint(tmp_path / "cat" / "0.png")
    with pytest.raises(ValueError, match="class cat has one image only"):
        load_images(str(tmp_path))


def test_a_subset_is_even_over_the_classes_and_stays_when_it_grows(folder):
    images = read_folder(folder / "train")
    chosen = first_of_each_class(images, 4, seed=0)
    assert sorted(images.labels[i] for i in chosen) == [0, 0, 1, 1]
    assert set(chosen) < set(first_of_each_class(images, 6, seed=0))
    with pytest.raises(ValueError, match="asked for 9 of 8"):
        first_of_each_class(images, 9, seed=0)


def test_digits_are_ten_classes_of_three_channel_images():
    train, val = load_images("digits")
    assert len(train) + len(val) == 1797
    assert train.read(0).shape == (3, 8, 8)
    assert train.read(0).max() == 255
    assert sorted(set(train.labels)) == list(range(10))
    assert split(train, 0.5, seed=0)[0].items.shape[1:] == (3, 8, 8)


def test_a_cifar_that_cannot_be_downloaded_says_so(tmp_path, monkeypatch):
    from torchvision import datasets

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "__init__", refuse)
    with pytest.raises(ValueError, match="could not be downloaded: no network"):
        load_images(f"cifar10:{tmp_path}")
