import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data.inputs import Inputs
from limbeck.tasks.semantic import recipe
from limbeck.tasks.semantic.cityscapes import CITYSCAPES
from limbeck.tasks.semantic.classes import IGNORED, UNKNOWN, meaning_of
from limbeck.tasks.semantic.load import load_masks, load_val_masks
from limbeck.tasks.semantic.options import Data

HEIGHT, WIDTH = 6, 8


def save(path, values, mode="L"):
    """Write an image whose pixels, row by row, are these values over and over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, (WIDTH, HEIGHT))
    if mode == "P":
        image.putpalette([value // 3 for value in range(3 * 256)])
    image.putdata([values[i % len(values)] for i in range(WIDTH * HEIGHT)])
    image.save(path)


def add(part, stem, values=(0, 1, 2, 255), mode="L", ending="png"):
    """Write an image and its mask."""
    save(part / "images" / f"{stem}.{ending}", [(10, 20, 30)], "RGB")
    save(part / "masks" / f"{stem}.png", values, mode)


def add_cityscapes(folder, part, name, values):
    city = name.partition("_")[0]
    save(folder / "leftImg8bit" / part / city / f"{name}_leftImg8bit.png", [(10, 20, 30)], "RGB")
    save(folder / "gtFine" / part / city / f"{name}_gtFine_labelIds.png", values)


def seen(masks, index=0):
    return masks.read_mask(index).unique().tolist()


def names(masks):
    return [path.stem for path in masks.images]


def assert_refused(data, *words, **options):
    """An error has these words in this order, wherever the folder is."""
    with pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, words))):
        load_masks(data, **options)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\n")
    for part, stems in (("train", "abcd"), ("val", "xy")):
        for stem in stems:
            add(tmp_path / part, stem)
    return tmp_path


@pytest.fixture
def flat(tmp_path):
    """One folder, to be split."""
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\n")
    for number in range(20):
        add(tmp_path, f"{number:02}")
    return tmp_path


def test_a_folder_with_train_and_val_gives_images_with_the_masks_of_their_stems(folder):
    add(folder / "train", "bb", (2,), ending="jpg")
    train, val = load_masks(folder)
    assert names(train) == ["a", "b", "bb", "c", "d"]
    assert names(train) == [path.stem for path in train.masks]
    assert names(val) == ["x", "y"]
    assert train.classes == val.classes == ["road", "car", "sky"]
    image, mask = train.read(0)
    assert (image.shape, mask.shape) == ((3, HEIGHT, WIDTH), (1, HEIGHT, WIDTH))
    assert image.dtype == mask.dtype == torch.uint8
    assert image[:, 0, 0].tolist() == [10, 20, 30]
    assert mask[0, 0].tolist() == [0, 1, 2, 255] * 2
    assert seen(train, 2) == [2]
    assert train.sizes == {(HEIGHT, WIDTH)}
    assert train.notes == val.notes == []


def test_a_folder_with_test_instead_of_val_and_one_with_all_three_measure_on_what_comes_first(folder):
    add(folder / "test", "z")
    assert names(load_masks(folder)[1]) == ["x", "y"]
    (folder / "val").rename(folder / "elsewhere")
    train, test = load_masks(folder)
    assert (names(train), names(test)) == (list("abcd"), ["z"])


def test_what_is_measured_on_is_read_alone_for_a_model_of_known_classes(folder):
    classes = ["sky", "car", "road"]
    (folder / "train").rename(folder / "test")
    assert names(load_val_masks(folder, classes)) == ["x", "y"]
    shutil.rmtree(folder / "val")
    masks = load_val_masks(folder, classes)
    assert (names(masks), masks.classes) == (list("abcd"), classes)
    assert seen(masks) == [0, 1, 2, 255]
    shutil.copytree(folder / "test", folder / "all")
    shutil.copy(folder / "classes.txt", folder / "all")
    assert names(load_val_masks(folder, classes, val_data=folder / "all")) == list("abcd")


def test_masks_are_found_in_nested_folders_beside_others_of_the_same_name(folder):
    add(folder / "train", "day/one/a", (1,))
    add(folder / "train", "night/a", (2,))
    train, _ = load_masks(folder)
    where = {str(path.relative_to(folder / "train" / "images")): i for i, path in enumerate(train.images)}
    assert seen(train, where["day/one/a.png"]) == [1]
    assert seen(train, where["night/a.png"]) == [2]


def test_one_folder_is_split_by_seed(flat):
    train, val = load_masks(flat, seed=3)
    again = load_masks(flat, seed=3)
    assert (len(train), len(val)) == (18, 2)
    assert sorted(names(train) + names(val)) == [f"{number:02}" for number in range(20)]
    assert (names(train), names(val)) == (names(again[0]), names(again[1]))
    assert len({tuple(names(load_masks(flat, seed=seed)[1])) for seed in range(5)}) > 1
    assert names(val) == [path.stem for path in val.masks]


def test_a_train_folder_alone_is_split(folder):
    shutil.rmtree(folder / "val")
    train, val = load_masks(folder)
    assert (len(train), len(val)) == (3, 1)
    assert sorted(names(train) + names(val)) == list("abcd")


def test_one_image_cannot_be_split(tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    add(tmp_path, "a", (0, 1))
    assert_refused(tmp_path, str(tmp_path), "one image only; a split into training and validation needs two")


def test_named_values_become_classes_in_the_order_of_their_lines(folder):
    (folder / "classes.txt").write_text("# a palette\n200 green tree\n\n7 sky  # blue\n0 road\n")
    for part in ("train", "val"):
        for mask in (folder / part / "masks").iterdir():
            save(mask, [0, 7, 200, 255])
    train, _ = load_masks(folder)
    assert train.classes == ["green tree", "sky", "road"]
    assert train.read_mask(0)[0, 0].tolist() == [2, 1, 0, 255] * 2


def test_names_alone_are_the_values_from_0_on(folder):
    (folder / "classes.txt").write_text("# of a street\n\nwide road\ncar # or van\n  sky \n")
    train, _ = load_masks(folder)
    assert train.classes == ["wide road", "car", "sky"]
    assert train.read_mask(0)[0, 0].tolist() == [0, 1, 2, 255] * 2


def test_the_ignored_value_and_255_are_of_no_class(folder):
    add(folder / "train", "a", (0, 11, 255, 1))
    train, _ = load_masks(folder, ignore_index=11)
    assert train.read_mask(0)[0, 0].tolist() == [0, 255, 255, 1] * 2
    assert_refused(folder, "train/masks/a.png holds the values [11]", "none of the 3 classes", "pass --ignore-index")


def test_an_ignored_value_that_no_mask_can_have_or_that_is_a_class_is_refused(folder):
    for value in (-1, 256):
        assert_refused(folder, f"ignore_index is {value}; masks hold values from 0 to 255", ignore_index=value)
    assert_refused(folder, "classes.txt names the class 'car'", "--ignore-index leaves out", ignore_index=1)


def test_a_meaning_is_a_class_or_ignored_or_unknown():
    meaning = meaning_of({4: "a", 2: "b"}, 9)
    assert meaning.shape == (256,)
    assert {value: int(meaning[value]) for value in (4, 2, 9, 255)} == {4: 0, 2: 1, 9: IGNORED, 255: IGNORED}
    assert (meaning == UNKNOWN).sum() == 252


@pytest.mark.parametrize("mode", ["P", "1"])
def test_masks_may_have_a_palette_or_a_single_bit(folder, mode):
    add(folder / "train", "a", (0, 1, 1, 0), mode)
    train, _ = load_masks(folder)
    assert train.read_mask(0)[0, 0].tolist() == [0, 1, 1, 0] * 2


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_value_that_is_no_class_names_the_mask(folder, part):
    stem = {"train": "c", "val": "y"}[part]
    save(folder / part / "masks" / f"{stem}.png", [0, 3, 254])
    assert_refused(folder, f"{part}/masks/{stem}.png holds the values [3, 254]", "pass --ignore-index")


def test_a_mask_of_another_size_than_its_image_names_both(folder):
    Image.new("L", (5, 4)).save(folder / "train" / "masks" / "b.png")
    assert_refused(folder, "train/images/b.png is 8x6 pixels, its mask", "train/masks/b.png has 5x4")


def test_masks_are_those_of_the_upright_picture(folder):
    path = folder / "train" / "images" / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)  # as the camera stored it
    image, mask = load_masks(folder)[0].read(0)
    assert image.shape[1:] == mask.shape[1:]
    Image.open(path).transpose(Image.Transpose.ROTATE_270).save(path, exif=exif)
    assert_refused(folder, "a.png is 6x8 pixels, its mask", "has 8x6; it is turned as its EXIF orientation says")


def test_missing_masks_are_counted_and_the_first_image_named(folder):
    for stem in "bc":
        (folder / "train" / "masks" / f"{stem}.png").unlink()
    assert_refused(folder, "images/b.png has no mask; it should be", "train/masks/b.png (problems found: 2)")
    train, _ = load_masks(folder, on_bad="skip")
    assert names(train) == ["a", "d"]
    assert "train: left out 2 images without a mask, the first: " in train.notes[0]
    assert "images/b.png has no mask" in train.notes[0]


def test_a_mask_in_a_format_that_is_not_read_is_named(folder):
    (folder / "train" / "masks" / "b.png").rename(folder / "train" / "masks" / "b.jpg")
    assert_refused(folder, "masks/b.png, and b.jpg is of no format that keeps values as they are")


def test_masks_of_one_class_alone_are_refused_as_of_black_and_white_where_white_is_meant_as_one(folder):
    for stem in "abcd":
        add(folder / "train", stem, (1, 255))
    white = "0 0 0 car and 255 255 255 road"
    assert_refused(folder, "of the 4 masks of", "are of one class, car, so there is nothing to learn; 255", white)
    (folder / "classes.txt").write_text("0 0 0 road\n255 255 255 car\n")
    for part, stems in (("train", "abcd"), ("val", "xy")):
        for stem in stems:
            add(folder / part, stem, (0, 255))
    assert seen(load_masks(folder)[0]) == [0, 1]


def test_classes_of_which_no_mask_has_a_pixel_are_told(folder):
    for stem in "abcd":
        add(folder / "train", stem, (0, 2))
    train, val = load_masks(folder)
    assert train.notes == [f"{folder / 'train'}: no mask has a pixel of 1 of the 3 classes: car"]
    assert val.notes == []


def test_two_images_of_one_stem_are_both_named(folder):
    save(folder / "train" / "images" / "b.jpg", [(1, 2, 3)], "RGB")
    assert_refused(folder, "train/images/b.jpg", "train/images/b.png have one stem")


def test_a_mask_in_colours_is_refused(folder):
    save(folder / "val" / "masks" / "y.png", [(1, 1, 1)], "RGB")
    assert_refused(folder, "val/masks/y.png is no index mask but of mode RGB", "one class index, 0 to 254")


@pytest.mark.parametrize("kept", [0, 20, 45])
def test_a_corrupt_mask_names_its_file(folder, kept):
    bad = folder / "train" / "masks" / "c.png"
    bad.write_bytes(bad.read_bytes()[:kept])
    assert_refused(folder, "train/masks/c.png cannot be read as a mask", "repair or remove it")


def test_a_corrupt_image_names_its_file(folder):
    bad = folder / "train" / "images" / "c.png"
    bad.write_bytes(b"no image")
    assert_refused(folder, "train/images/c.png cannot be read as an image", "repair or remove it")


def test_an_image_that_breaks_off_names_its_file(folder):
    bad = folder / "train" / "images" / "c.png"
    bad.write_bytes(bad.read_bytes()[:50])
    assert_refused(folder, "train/images/c.png cannot be read as an image", "repair or remove it")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 road\n3 car\n3 sky\n", ("classes.txt", "3", "'sky' is taken")),
        ("0 road\n255 void\n", ("classes.txt", "255", "'void'", "above 254", "0 0 0 NAME")),
        ("road\n# car\n", ("classes.txt", "names 1 classes", "two or more")),
        (None, ("classes.txt", "should name a class a line, in the order of their values")),
    ],
)
def test_a_list_of_classes_that_is_wrong_says_what_it_should_be(folder, text, words):
    (folder / "classes.txt").unlink()
    if text is not None:
        (folder / "classes.txt").write_text(text)
    assert_refused(folder, *words)


def test_missing_folders_are_named(folder, tmp_path):
    assert_refused(folder / "nothing", "no folder", "nothing", "should hold images/ and masks/, or train/ and val/")
    (folder / "val" / "masks").rename(folder / "elsewhere")
    assert_refused(folder, "no folder", "val/masks", "masks lie beside images, with the same stems")


def test_folders_without_images_are_named(folder):
    for path in (folder / "train" / "images").iterdir():
        path.rename(path.with_suffix(".jp2"))
    assert_refused(folder, "train/images holds no image (its files end in .jp2); the endings read are .bmp .gif")


def test_masks_without_a_labelled_pixel_are_counted_and_named(folder):
    add(folder / "train", "b", (255, 9))
    add(folder / "train", "d", (255,))
    train, val = load_masks(folder, ignore_index=9)
    assert train.notes == ["2 of 4 masks have no labelled pixel: b.png, d.png"]
    assert val.notes == []


def test_of_many_masks_without_a_labelled_pixel_three_are_named(folder):
    for stem in "abcd":
        add(folder / "train", stem, (255,))
    add(folder / "train", "e")
    assert load_masks(folder)[0].notes == ["4 of 5 masks have no labelled pixel: a.png, b.png, c.png, ..."]


def test_masks_without_an_image_are_counted(folder):
    for stem in ("left", "over"):
        save(folder / "val" / "masks" / f"{stem}.png", [0])
    train, val = load_masks(folder)
    assert names(val) == ["x", "y"]
    assert val.notes == [f"{folder / 'val'}: 2 masks have no image"]
    assert train.notes == []


def test_the_sizes_that_there_are_are_known(folder):
    Image.new("RGB", (5, 4)).save(folder / "val" / "images" / "z.png")
    Image.new("L", (5, 4)).save(folder / "val" / "masks" / "z.png")
    train, val = load_masks(folder)
    assert train.sizes == {(HEIGHT, WIDTH)}
    assert val.sizes == {(HEIGHT, WIDTH), (4, 5)}


def test_the_labels_of_cityscapes_become_the_19_that_are_trained_on(tmp_path):
    labels = list(CITYSCAPES)
    others = [label for label in range(34) if label not in CITYSCAPES]
    add_cityscapes(tmp_path, "train", "ulm_000001_000019", labels)
    add_cityscapes(tmp_path, "train", "aachen_000000_000019", [*others, 255])
    add_cityscapes(tmp_path, "val", "bonn_000002_000019", [7, 33])
    train, val = load_masks(tmp_path)
    assert (len(train), len(val)) == (2, 1)
    assert seen(train, 0) == [IGNORED]
    assert train.notes == ["1 of 2 masks have no labelled pixel: aachen_000000_000019_gtFine_labelIds.png"]
    assert train.read_mask(1).flatten()[:19].tolist() == list(range(19))
    assert [train.classes[i] for i in (0, 1, 10, 11, 13, 18)] == ["road", "sidewalk", "sky", "person", "car", "bicycle"]
    assert seen(val) == [0, 18]


def test_what_is_wrong_with_cityscapes_names_the_file(tmp_path):
    (tmp_path / "gtFine").mkdir()
    assert_refused(tmp_path, "no *_leftImg8bit.png below", "leftImg8bit/train")
    add_cityscapes(tmp_path, "train", "ulm_000001_000019", [7, 8])
    add_cityscapes(tmp_path, "val", "bonn_000002_000019", [7, 34])
    assert_refused(tmp_path, "bonn_000002_000019_gtFine_labelIds.png holds the values [34]", "none of the 19 classes")
    (tmp_path / "gtFine" / "val" / "bonn" / "bonn_000002_000019_gtFine_labelIds.png").unlink()
    add_cityscapes(tmp_path, "val", "bonn_000003_000019", [7])
    wanted = "gtFine/val/bonn/bonn_000002_000019_gtFine_labelIds.png"
    assert_refused(tmp_path, "bonn_000002_000019_leftImg8bit.png has no mask; it should be", wanted)
    _, val = load_masks(tmp_path, on_bad="skip")
    assert names(val) == ["bonn_000003_000019_leftImg8bit"]
    assert "left out 1 images without a mask, the first: " in val.notes[0]


def test_a_mask_of_16_bits_is_read_where_its_values_fit_into_8(folder):
    path = folder / "train" / "masks" / "a.png"
    for values in ([0, 1, 2, 255], [0, 1, 2, 256]):
        pixels = np.resize(np.array(values, np.uint16), (HEIGHT, WIDTH))
        Image.fromarray(pixels).save(path)
        if values[-1] == IGNORED:
            assert load_masks(folder)[0].read_mask(0)[0, 0].tolist() == [0, 1, 2, 255] * 2
    assert_refused(folder, "train/masks/a.png is no index mask but of mode I;16")


def test_what_cannot_be_used_is_left_out_and_counted_if_so_wanted(folder):
    for number in range(4):
        add(folder / "train", f"{number}")
    (folder / "train" / "images" / "0.png").write_bytes(b"no image")
    save(folder / "train" / "masks" / "1.png", [7])
    (folder / "train" / "masks" / "2.png").write_bytes(b"no mask")
    Image.new("L", (5, 4)).save(folder / "train" / "masks" / "3.png")
    assert_refused(folder, "0.png cannot be read as an image", "(problems found: 4)", "--on-bad-data skip")
    train, _ = load_masks(folder, on_bad="skip")
    assert names(train) == list("abcd")
    assert [note.partition("train: ")[2].partition(",")[0] for note in train.notes] == [
        "left out 1 unreadable images",
        "left out 2 unusable masks",
        "left out 1 masks of another size",
    ]


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_part_of_which_no_pixel_has_a_class_is_refused(folder, part):
    for path in (folder / part / "masks").iterdir():
        save(path, [255])
    count = {"train": 4, "val": 2}[part]
    assert_refused(folder, f"none of the {count} masks of", f"{part}/masks has a pixel of a class", "--ignore-index")


def test_a_tenth_held_out_of_which_no_pixel_has_a_class_is_refused(flat):
    _, val = load_masks(flat)
    assert val.origin == f"held out of {flat / 'images'} with the masks of {flat / 'masks'} by the seed 0, 10%"
    for path in val.masks:
        save(path, [255])
    assert_refused(flat, "none of the 2 masks held out of", "has a pixel of a class", "--data-seed")
    assert load_masks(flat, seed=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": -3}, "images is -3; it must be 1 or more"),
        ({"crop": (0, 8)}, r"crop is \(0, 8\); it must be 1 or more"),
        ({"scale": (0.5, float("inf"))}, r"scale is \(0.5, inf\); it must be finite and above 0"),
        ({"scale": (2.0, 1.0)}, r"scale is \(2.0, 1.0\); it is the smallest and the largest factor"),
        ({"data_seed": 10**30}, "data_seed is 1"),
        ({"ignore_index": 300}, "ignore_index is 300; it must be 0 or more, and at most 255"),
    ],
)
def test_sizes_and_shares_that_cannot_be_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        Data(tmp_path, **wrong)


def test_the_first_image_does_not_decide_at_which_size_all_are_seen(folder):
    for part, colour in (("images", "RGB"), ("masks", "L")):
        Image.new(colour, (1, 1)).save(folder / "train" / part / "!.png")
    masks, _ = recipe._masks(Data(folder))
    assert recipe._short_side(Data(folder), masks) == HEIGHT
    assert recipe._crop(Data(folder), masks, [Inputs(multiple=1)]) == (HEIGHT, WIDTH)


def test_the_data_are_summed_up_for_the_start_of_a_run(folder):
    masks, _ = recipe._masks(Data(folder))
    assert masks.notes[:3] == [
        "classes: 3 (road, car, sky)",
        f"training: 4 images, of {folder / 'train' / 'images'} with the masks of {folder / 'train' / 'masks'}",
        f"validation: 2 images, of {folder / 'val' / 'images'} with the masks of {folder / 'val' / 'masks'}",
    ]


def test_chosen_masks_of_which_no_pixel_has_a_class_are_refused(folder):
    for stem in "abcd":
        add(folder / "train", stem, (255,) if stem != "d" else (0, 1))
    refused = 0
    for seed in range(8):
        try:
            recipe._masks(Data(folder, images=1, data_seed=seed))
        except ValueError as error:
            refused += "none of the 1 masks" in str(error)
    assert 0 < refused < 8


def test_a_list_of_classes_in_latin_1_names_its_line(folder):
    (folder / "classes.txt").write_bytes("road\ncafé\n".encode("latin-1"))
    assert_refused(folder, "classes.txt is not UTF-8: line 2 has the byte 0xe9", "save the file as UTF-8")


def test_a_byte_order_mark_is_no_part_of_a_name(folder):
    (folder / "classes.txt").write_bytes(b"\xef\xbb\xbfroad\ncar\nsky\n")
    assert load_masks(folder)[0].classes == ["road", "car", "sky"]


@pytest.mark.parametrize(
    ("images", "masks", "train", "val"),
    [
        ("img_dir", "ann_dir", "train", "val"),
        ("images", "annotations", "training", "validation"),
        ("images", "masks", "Train", "Valid"),
    ],
)
def test_parts_may_lie_below_images_and_masks(tmp_path, images, masks, train, val):
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\n")
    for part, stem in ((train, "a"), (val, "b")):
        save(tmp_path / images / part / f"{stem}.png", [(10, 20, 30)], "RGB")
        save(tmp_path / masks / part / f"{stem}.png", [0, 1])
    assert [names(part) for part in load_masks(tmp_path)] == [["a"], ["b"]]


def test_test_images_without_masks_are_no_part(folder):
    save(folder / "test" / "images" / "t.png", [(1, 2, 3)], "RGB")
    (folder / "val").rename(folder / "elsewhere")
    (folder / "elsewhere" / "images").rename(folder / "elsewhere" / "photographs")
    train, val = load_masks(folder)
    assert sorted(names(train) + names(val)) == list("abcd")


def test_a_folder_with_images_that_is_no_known_part_is_refused(folder):
    (folder / "val").rename(folder / "held_out")
    assert_refused(folder, "holds held_out, which has images but is no part that is known")


@pytest.mark.parametrize("parts", [("seg_train", "seg_test"), ("train", "holdout")])
def test_a_folder_below_images_that_is_no_known_part_is_refused(tmp_path, parts):
    (tmp_path / "classes.txt").write_text("road\ncar\nsky\n")
    for part in parts:
        save(tmp_path / "images" / part / "a.png", [(10, 20, 30)], "RGB")
        save(tmp_path / "masks" / part / "a.png", [0, 1])
    assert_refused(tmp_path, "is of no part that is known; known names are train/")


def test_validation_masks_may_lie_elsewhere_with_classes_in_another_order(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "classes.txt").write_text("5 sky\n3 road\n4 car\n")
    for stem in "xyz":
        add(other, stem, (3, 4, 5, 255))
    train, val = load_masks(folder, val_data=other)
    assert (len(train), names(val), val.classes) == (4, list("xyz"), ["road", "car", "sky"])
    assert val.read_mask(0)[0, 0].tolist() == [0, 1, 2, 255] * 2
    (other / "classes.txt").write_text("5 sky\n3 road\n4 bus\n")
    assert_refused(folder, "has not the classes of the training images; only one has ['bus', 'car']", val_data=other)


PALETTES = {
    "classes.txt": "128 64 128 road\n0 0 142 car\n0 0 0 void\n",
    "class_dict.csv": "name,r,g,b\nroad,128,64,128\ncar,0,0,142\nVoid,0,0,0\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\nignore:0,0,0::\n",
}


@pytest.mark.parametrize("name", PALETTES)
@pytest.mark.parametrize("palette", [False, True])
def test_masks_may_be_in_colours_that_a_file_names(folder, name, palette):
    (folder / "classes.txt").unlink()
    (folder / name).write_text(PALETTES[name])
    for path in [*folder.glob("*/masks/*.png")]:
        save(path, [(128, 64, 128), (0, 0, 142), (0, 0, 0)], "RGB")
        if palette:
            Image.open(path).quantize(4).save(path)
    train, _ = load_masks(folder)
    assert train.classes == ["road", "car"]
    assert train.read_mask(0)[0, 0].tolist() == [0, 1, IGNORED, 0, 1, IGNORED, 0, 1]


@pytest.mark.parametrize(("beside", "ending"), [("{}_labels", "_L"), ("{}annot", ""), ("{}_masks", "_mask")])
def test_masks_may_lie_in_folders_called_after_those_of_the_images(tmp_path, beside, ending):
    """As CamVid is published with class_dict.csv, and as it came with SegNet."""
    (tmp_path / "class_dict.csv").write_text(PALETTES["class_dict.csv"])
    for part, stems in (("train", "ab"), ("val", "c"), ("test", "d")):
        for stem in stems:
            save(tmp_path / part / f"{stem}.png", [(10, 20, 30)], "RGB")
            save(tmp_path / beside.format(part) / f"{stem}{ending}.png", [(128, 64, 128), (0, 0, 142)], "RGB")
    train, val = load_masks(tmp_path)
    assert (names(train), names(val)) == (["a", "b"], ["c"])
    assert train.classes == ["road", "car"]
    assert seen(train) == [0, 1]
    assert names(load_masks(tmp_path, split="test")[1]) == ["d"]
    shutil.rmtree(tmp_path / beside.format("val"))
    assert_refused(tmp_path, "val has images, but no folder of masks is called after it, as there is for ")


def test_a_colour_that_stands_for_no_class_is_told(folder):
    (folder / "classes.txt").write_text(PALETTES["classes.txt"])
    for path in [*folder.glob("*/masks/*.png")]:
        save(path, [(128, 64, 128), (1, 2, 3)], "RGB")
    assert_refused(folder, "a.png holds the colours [[1, 2, 3]]", "none of the 2 classes", "call it void")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,r,g,b\nroad,128,64\n", "'road' has the colour '128,64'"),
        ("name,r,g,b\nroad,1,2,300\n", "'road' has the colour '1,2,300'"),
        ("name,r,g,b\nroad,1,2,3\ncar,1,2,3\n", "'car' has the colour of 'road'"),
        ("name,r,g,b\n", "names no colours"),
    ],
)
def test_a_palette_that_is_wrong_is_told(folder, text, words):
    (folder / "classes.txt").unlink()
    (folder / "class_dict.csv").write_text(text)
    assert_refused(folder, "class_dict.csv", words)


@pytest.mark.parametrize("root", ["", "VOCdevkit/VOC2012"])
def test_pascal_voc_is_read_as_it_is_published(tmp_path, root):
    voc = tmp_path / root
    for stem in "abc":
        save(voc / "JPEGImages" / f"{stem}.jpg", [(10, 20, 30)], "RGB")
    for stem in "ab":
        save(voc / "SegmentationClass" / f"{stem}.png", [0, 15, 20, 255], "P")
    lists = voc / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    (lists / "val.txt").write_text("b\n\n")
    train, val = load_masks(tmp_path)
    assert (names(train), names(val)) == (["a"], ["b"])
    assert (len(train.classes), train.classes[0], train.classes[15]) == (21, "background", "person")
    assert train.read_mask(0)[0, 0].tolist() == [0, 15, 20, 255] * 2
    (lists / "val.txt").write_text("c\nb\nd\n")
    assert_refused(tmp_path, "lists c, but there is no", "SegmentationClass/c.png", "(problems found: 2)")
    _, val = load_masks(tmp_path, on_bad="skip")
    assert names(val) == ["b"]
    assert "left out 2 listed images, the first: " in val.notes[0]
