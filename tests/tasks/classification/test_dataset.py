import itertools

import pytest
import torch
from PIL import Image

from limbeck.data.parts import summary
from limbeck.tasks.classification.dataset import first_of_each_class, split_off
from limbeck.tasks.classification.folders import read_folder, read_unlabelled
from limbeck.tasks.classification.lists import read_list
from limbeck.tasks.classification.load import load_images


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
    with pytest.raises(ValueError, match=r"cat/0\.png cannot be read as an image.*found: 1.*--on-bad-data skip"):
        load_images(str(folder))


def test_bad_images_can_be_skipped_and_are_counted(folder):
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    train, _ = load_images(str(folder), on_bad="skip")
    assert len(train) == 7
    assert any("left out 1 unreadable images, the first: " in note for note in train.notes)


def test_a_link_to_an_image_that_is_gone_is_told(folder):
    (folder / "train" / "cat" / "9.png").symlink_to(folder / "gone.png")
    with pytest.raises(ValueError, match=r"cat/9\.png cannot be read as an image .*No such file.*--on-bad-data skip"):
        load_images(str(folder))
    train, _ = load_images(str(folder), on_bad="skip")
    assert len(train) == 8
    assert "left out 1 unreadable images, the first: " in train.notes[0]


def test_a_jpeg_as_browsers_on_windows_save_it_is_an_image(folder):
    paint(folder / "train" / "cat" / "9.jfif")
    train, _ = load_images(str(folder))
    assert len(train) == 9
    assert train.read(4).shape[0] == 3


def test_files_that_are_no_images_are_counted(folder):
    for name in ("notes.txt", "a.avif", "b.avif"):
        (folder / "train" / "cat" / name).write_text("")
    told = f"{folder / 'train'}: left out 3 files that are no images by their ending (.avif, .txt)"
    assert load_images(str(folder))[0].notes == [told]


def test_an_empty_class_names_its_folder(folder):
    (folder / "train" / "emu").mkdir()
    with pytest.raises(ValueError, match=r"train/emu holds no image; the endings read are .*; fill or remove it"):
        load_images(str(folder))
    (folder / "train" / "emu" / "0.heic").touch()
    with pytest.raises(ValueError, match=r"train/emu holds no image \(its files end in \.heic\); the endings read"):
        load_images(str(folder))
    (folder / "train" / "emu" / "0.jpg").touch()
    with pytest.raises(ValueError, match=r"train/emu holds no readable image"):
        load_images(str(folder), on_bad="skip")


def test_empty_missing_and_flat_folders_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        load_images(str(tmp_path / "nothing"))
    for name, meant in (
        ("Digits", "digits"),
        ("digit", "digits"),
        ("CIFAR10:x", "cifar10:DIR"),
        ("cifar-100", "cifar100"),
    ):
        with pytest.raises(ValueError, match=rf"no folder {name}; .*; did you mean {meant}"):
            load_images(name)
    with pytest.raises(ValueError, match="has no class folders"):
        load_images(str(tmp_path))
    with pytest.raises(ValueError, match="holds no image"):
        read_unlabelled(tmp_path, ["cat"])
    with pytest.raises(ValueError, match="no folder"):
        read_unlabelled(tmp_path / "nothing", ["cat"])


def test_classes_that_differ_between_train_and_val_are_named(folder):
    paint(folder / "val" / "emu" / "0.png")
    with pytest.raises(ValueError, match=r"val has folders that are no classes of the training images: emu$"):
        load_images(str(folder))


def test_validation_may_lack_a_class_which_is_told(folder):
    paint(folder / "train" / "ant" / "0.png")
    train, val = load_images(str(folder))
    assert train.classes == val.classes == ["ant", "cat", "dog"]
    assert list(val.labels) == [1, 1, 2, 2]
    told = f"{folder}: no image to measure on is of 1 of the 3 classes: ant"
    assert val.notes == [told]
    for part, names in (("train", ("ant", "cat", "dog")), ("val", ("cat", "dog"))):
        lines = [f"{part}/{name}/0.png,{name}\n" for name in names]
        (folder / f"{part}.csv").write_text("".join(lines))
    lists = load_images(str(folder / "train.csv"), val_data=folder / "val.csv")
    assert lists[1].notes == [told.replace(str(folder), str(folder / "val.csv"))]


def test_a_class_of_one_image_cannot_be_split(tmp_path):
    for file in ("cat/0.png", "dog/0.png", "dog/1.png"):
        paint(tmp_path / file)
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
    assert split_off(train, 0.5, seed=0)[0].items.shape[1:] == (3, 8, 8)


def test_a_cifar_that_cannot_be_downloaded_says_so(tmp_path, monkeypatch):
    from torchvision import datasets

    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(datasets.CIFAR10, "__init__", refuse)
    with pytest.raises(ValueError, match="could not be downloaded: no network"):
        load_images(f"cifar10:{tmp_path}")


@pytest.mark.parametrize(
    ("train", "val"), [("Train", "Test"), ("training", "validation"), ("TRAIN", "Val"), ("train", "valid")]
)
def test_parts_are_known_by_several_names_in_any_case(tmp_path, train, val):
    for part in (train, val):
        for name in ("cat", "dog"):
            paint(tmp_path / part / name / "0.png")
    images, held_out = load_images(str(tmp_path))
    assert images.classes == held_out.classes == ["cat", "dog"]
    assert images.items == [tmp_path / train / name / "0.png" for name in ("cat", "dog")]
    assert held_out.items == [tmp_path / val / name / "0.png" for name in ("cat", "dog")]


@pytest.mark.parametrize(
    "parts",
    [("seg_test", "seg_train"), ("testset", "trainset"), ("trn", "tst"), ("fold1", "fold2"), ("split_a", "split_b")],
)
def test_what_looks_like_a_part_but_is_not_known_is_refused(tmp_path, parts):
    for part in parts:
        for name in ("cat", "dog"):
            paint(tmp_path / part / name / "0.png")
    words = rf"holds {', '.join(parts)}, which look like parts, not classes; known names"
    with pytest.raises(ValueError, match=words):
        load_images(str(tmp_path))


def test_parts_below_the_classes_are_refused(tmp_path):
    for name in ("bottle", "cable"):
        for part in ("train/good", "test/broken"):
            paint(tmp_path / name / part / "0.png")
    with pytest.raises(
        ValueError, match=r"bottle holds test, train: if that is .* pass --data .*bottle; if each class has"
    ):
        load_images(str(tmp_path))


def test_a_class_may_be_called_as_what_it_shows(tmp_path):
    for name in ("bullet train", "test tube"):
        for number in range(2):
            paint(tmp_path / name / f"{number}.png")
    assert load_images(str(tmp_path))[0].classes == ["bullet train", "test tube"]


def test_a_part_beside_what_may_be_classes_is_refused(tmp_path):
    for name in ("car", "train"):
        paint(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=r"holds train, a part, beside car: .* if they are classes, and so is train"):
        load_images(str(tmp_path))


def test_two_names_of_one_part_are_refused(folder):
    paint(folder / "valid" / "cat" / "0.png")
    with pytest.raises(ValueError, match=r"val and .*valid are both the val images by their names"):
        load_images(str(folder))


def test_hidden_folders_and_files_are_none_and_links_are_followed(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp(".elsewhere")
    paint(elsewhere / "deep" / "linked.png")
    paint(folder / "train" / ".ipynb_checkpoints" / "x.png")
    paint(folder / "train" / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png")
    (folder / "train" / "cat" / "._0.png").write_bytes(b"of a file manager")
    (folder / "train" / "cat" / "more").symlink_to(elsewhere)
    (folder / "train" / "cat" / "loop").symlink_to(folder / "train" / "cat")
    images = read_folder(folder / "train")
    assert images.classes == ["cat", "dog"]
    cats = [item.name for item, label in zip(images.items, images.labels, strict=True) if label == 0]
    assert cats == ["0.png", "1.png", "2.png", "3.png", "linked.png"]


def test_validation_images_may_lie_elsewhere_or_be_chosen_by_their_part(folder, tmp_path_factory):
    for name in ("cat", "dog"):
        paint(folder / "test" / name / "t.png")
    assert {item.name for item in load_images(str(folder))[1].items} == {"0.png", "1.png"}
    assert {item.name for item in load_images(str(folder), split="test")[1].items} == {"t.png"}
    other = tmp_path_factory.mktemp("other")
    for name in ("cat", "dog"):
        paint(other / name / "o.png")
    train, val = load_images(str(folder / "train"), val_data=other)
    assert (len(train), {item.name for item in val.items}) == (8, {"o.png"})
    with pytest.raises(ValueError, match="has no test images; it has train"):
        load_images(str(folder / "train"), split="test")


def test_the_data_are_summed_up_for_the_start_of_a_run(folder):
    train, val = load_images(str(folder))
    assert summary(train, val) == [
        "classes: 2 (cat, dog)",
        f"training: 8 images, in the class folders of {folder / 'train'}",
        f"validation: 4 images, in the class folders of {folder / 'val'}",
    ]
    assert f"held out of the class folders of {folder / 'train'} by" in summary(*load_images(str(folder / "train")))[2]


def test_images_that_are_both_trained_on_and_measured_on_are_told(folder):
    shared = load_images(str(folder / "train"), val_data=folder / "train")
    assert summary(*shared)[3:] == [
        "training and validation have 8 files in common: what is measured on these says nothing of new images"
    ]
    assert len(summary(*load_images(str(folder)))) == 3


def test_a_list_may_have_been_made_on_windows_and_its_heading_be_another(tmp_path):
    for name in ("cat/a.png", "dog/b.png"):
        paint(tmp_path / name)
    file = tmp_path / "train.csv"
    file.write_text("cat\\a.png,cat\r\ndog\\b.png,dog\r\n")
    assert list(read_list(file).items) == [tmp_path / "cat" / "a.png", tmp_path / "dog" / "b.png"]
    file.write_text("photo,animal\ncat/a.png,cat\ndog/b.png,dog\n")
    with pytest.raises(ValueError, match=r"line 1: there is no image photo .*if that is a heading"):
        read_list(file)


def test_a_list_names_images_and_labels(tmp_path):
    for name in ("a.png", "b.png", "train/c.jpeg"):
        paint(tmp_path / name)
    (tmp_path / "train.csv").write_text("label,width,image_id\ndog,3,a.png\ncat,4,b\n\ndog,5,c\n")
    (tmp_path / "val.csv").write_text("b.png,cat\n")
    train, val = load_images(str(tmp_path))
    assert train.classes == val.classes == ["cat", "dog"]
    assert train.items == [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "train" / "c.jpeg"]
    assert (train.labels, val.labels) == ([1, 0, 1], [0])
    assert train.origin == f"in the list {tmp_path / 'train.csv'}"


def test_images_and_masks_are_no_classes(tmp_path):
    for name in ("images", "masks"):
        paint(tmp_path / "train" / name / "a.png")
    with pytest.raises(ValueError, match=r"train holds images and masks, no classes: .* limbeck train semantic"):
        load_images(str(tmp_path))


@pytest.mark.parametrize("heading", ["split", "data set", "Subset"])
@pytest.mark.parametrize("named", [True, False])
def test_a_column_of_a_list_may_say_which_part_an_image_is_of(tmp_path, heading, named):
    lines = [f"filepaths,labels,{heading}"]
    for number, (label, part) in enumerate(itertools.product(("cat", "dog"), ("train", "train", "valid", "test"))):
        paint(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{label},{part}")
    file = tmp_path / "train.csv"
    file.write_text("\n".join(lines))
    data = str(file if named else tmp_path)
    train, val = load_images(data)
    assert [int(path.stem) for path in train.items] == [0, 1, 4, 5]
    assert [int(path.stem) for path in val.items] == [2, 6]
    assert val.origin == f"in the list {file}, of its part val"
    assert [int(path.stem) for path in load_images(data, split="test")[1].items] == [3, 7]
    file.write_text("\n".join(lines).replace("1.png,cat,train", "1.png,cat,extra"))
    with pytest.raises(ValueError, match=r"train.csv, line 3: 'extra' is no part that is known"):
        load_images(data)
    file.write_text("\n".join(lines).replace("train", "one").replace("valid", "two").replace("test", "three"))
    assert len(load_images(data)[0]) == 6  # no such column: a tenth of each class is held out


def test_a_list_that_looks_like_a_part_but_is_not_known_is_refused(tmp_path):
    for number in range(4):
        paint(tmp_path / f"{number}.png")
    lines = "0.png,cat\n1.png,cat\n2.png,dog\n3.png,dog\n"
    for name in ("train", "train_extended", "sample_submission", "dev"):
        (tmp_path / f"{name}.csv").write_text(lines)
    with pytest.raises(ValueError, match=r"dev\.csv is of no part that is known.* --val-data"):
        load_images(str(tmp_path))
    assert len(load_images(str(tmp_path / "train.csv"), val_data=tmp_path / "dev.csv")[1]) == 4
    (tmp_path / "dev.csv").unlink()
    assert len(load_images(str(tmp_path))[1]) == 2


def test_a_list_may_have_a_column_for_each_class(tmp_path):
    for name in ("a", "b", "c"):
        paint(tmp_path / f"{name}.png")
    (tmp_path / "train.csv").write_text("image,nevus,melanoma\na,0.0,1.0\nb,1.0,0.0\nc,1,0\n")
    images = read_list(tmp_path / "train.csv")
    assert images.classes == ["melanoma", "nevus"]
    assert images.labels == [0, 1, 1]


@pytest.mark.parametrize("line", ["a,1,1,0", "a,0,0,0", "a,1,0"])
def test_a_list_with_columns_of_classes_wants_one_class_a_line(tmp_path, line):
    (tmp_path / "train.csv").write_text(f"image,dog,cat,emu\n{line}\n")
    with pytest.raises(ValueError, match=r"train\.csv, line 2: .*of the 3 columns of classes, one is 1"):
        read_list(tmp_path / "train.csv")


def test_labels_that_are_numbers_are_in_their_order(tmp_path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png")
    (tmp_path / "list.tsv").write_text("a.png\t10\nb.png\t9\n")
    assert read_list(tmp_path / "list.tsv").classes == ["9", "10"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("path,label\n", "is empty"),
        ("a.png,cat\na.png\n", "line 2: 'a.png' has no label"),
        ("a.png,cat\nnone.png,dog\n", "line 2: there is no image none.png"),
    ],
)
def test_a_list_that_is_wrong_is_told_by_its_line(tmp_path, text, words):
    paint(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"train\.csv.*{words}"):
        read_list(tmp_path / "train.csv")


def test_missing_images_of_a_list_are_left_out_if_so_wanted(tmp_path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png")
    (tmp_path / "train.csv").write_text("a.png,cat\nnone.png,dog\nb.png,dog\nlost.png,cat\n")
    images = read_list(tmp_path / "train.csv", on_bad="skip")
    assert [item.name for item in images.items] == ["a.png", "b.png"]
    assert images.labels == [0, 1]
    assert "left out 2 missing images, the first: line 2: there is no image none.png" in images.notes[0]


def test_a_label_that_no_training_image_has_is_refused(tmp_path):
    paint(tmp_path / "a.png")
    (tmp_path / "train.csv").write_text("a.png,cat\n")
    (tmp_path / "val.csv").write_text("a.png,cat\na.png,emu\n")
    with pytest.raises(ValueError, match=r"val\.csv, line 2: no training image is of the class 'emu'"):
        load_images(str(tmp_path / "train.csv"), val_data=tmp_path / "val.csv")


def test_a_list_in_latin_1_names_its_line(tmp_path):
    (tmp_path / "train.csv").write_bytes("a.png,cat\nb.png,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"train\.csv is not UTF-8: line 2 has the byte 0xe9"):
        read_list(tmp_path / "train.csv")


def test_images_of_one_class_are_refused(tmp_path):
    for name in ("0.png", "1.png"):
        paint(tmp_path / "cat" / name)
    with pytest.raises(ValueError, match=r"has one class only \(cat\); a classifier needs two"):
        load_images(str(tmp_path))


def test_an_image_that_a_list_names_twice_counts_once_or_has_two_labels(tmp_path):
    paint(tmp_path / "a.png")
    paint(tmp_path / "b.png")
    (tmp_path / "train.csv").write_text("a.png,cat\nb.png,dog\na.png,cat\n")
    images = read_list(tmp_path / "train.csv")
    assert images.labels == [0, 1]
    assert "1 lines name an image that another names" in images.notes[0]
    (tmp_path / "train.csv").write_text("a.png,cat\nb.png,dog\na.png,dog\n")
    with pytest.raises(ValueError, match=r"line 1 says that a.png is cat, line 3 dog"):
        read_list(tmp_path / "train.csv")


@pytest.mark.parametrize("comma", [";", "\t"])
def test_a_list_may_be_separated_as_spreadsheets_do(tmp_path, comma):
    for name in ("a, b.png", "c.png"):
        paint(tmp_path / name)
    lines = (("path", "label"), ("a, b.png", "cat"), ("c.png", '"dog, ""small"""'))
    (tmp_path / "train.csv").write_text("\ufeff" + "\r\n".join(map(comma.join, lines)), encoding="utf-8")
    images = read_list(tmp_path / "train.csv")
    assert [path.name for path in images.items] == ["a, b.png", "c.png"]
    assert images.classes == ["cat", 'dog, "small"']


def test_a_list_is_read_where_its_images_lie_in_folders_of_folders(tmp_path):
    """And not the folders above them as classes; but parts with classes come before a list of what is in them."""
    for name in ("photos/cat/a.png", "photos/dog/b.png", "more/cat/c.png"):
        paint(tmp_path / name)
    (tmp_path / "train.csv").write_text("photos/cat/a.png,cat\nphotos/dog/b.png,dog\nmore/cat/c.png,cat\n")
    train, _ = load_images(str(tmp_path), val_data=tmp_path / "train.csv")
    assert train.classes == ["cat", "dog"]
    for name in ("photos", "more"):
        (tmp_path / name).rename(tmp_path / f".{name}")
    for name in ("train/emu/a.png", "train/owl/b.png"):
        paint(tmp_path / name)
    train, _ = load_images(str(tmp_path), val_data=tmp_path / "train")
    assert train.classes == ["emu", "owl"]
