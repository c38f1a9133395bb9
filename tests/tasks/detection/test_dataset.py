import json
import re
import zipfile

import pytest
import torch
from PIL import Image

from limbeck.tasks.detection import recipe
from limbeck.tasks.detection.coco import read_coco
from limbeck.tasks.detection.load import load_objects, load_val_objects
from limbeck.tasks.detection.options import Data
from tests.places import SHARED_DATA

HEIGHT, WIDTH = 30, 40
ROTATE_90, ROTATE_180, ROTATE_270 = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270
SHARED = SHARED_DATA
CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
TRIANGLE = [[2, 2, 12, 2, 12, 12]]


def image(identity, **changes):
    return {"id": identity, "file_name": f"{identity}.png", "height": HEIGHT, "width": WIDTH, **changes}


def annotation(identity, image_id=1, **changes):
    """An annotation; a change to ``...`` takes the key away."""
    whole = {"id": identity, "image_id": image_id, "category_id": 3, "bbox": [2, 2, 10, 10], "area": 50, **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def write_part(data, name, images, annotations, categories=CATEGORIES):
    """Write a json and images of the size that is meant, in ``images/NAME``."""
    for folder in (data / "annotations", data / "images" / name):
        folder.mkdir(parents=True, exist_ok=True)
    for each in images:
        Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30)).save(data / "images" / name / f"{each['id']}.png")
    content = {"images": images, "annotations": annotations, "categories": categories}
    (data / "annotations" / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def read(tmp_path):
    """Write images and annotations, and read them."""

    def write_and_read(images, annotations, categories=CATEGORIES, **options):
        write_part(tmp_path, "train", images, annotations, categories)
        return again(tmp_path, **options)

    return write_and_read


def again(data, **options):
    return read_coco(data / "annotations" / "train.json", data / "images" / "train", **options)


def refused(*words):
    """An error has these words in this order."""
    return pytest.raises(ValueError, match="(?s)" + ".*".join(map(re.escape, words)))


def test_objects_are_given_as_the_json_has_them(read, tmp_path):
    annotations = [
        annotation(1, 5, category_id=7, bbox=[1.5, 2, 10.25, 8], area=33.5),
        annotation(2, 9, iscrowd=1),
        annotation(3, 5, bbox=[0, 0, WIDTH, HEIGHT], area=...),
    ]
    objects = read([image(5), image(9), image(2)], annotations)
    assert (objects.classes, objects.ids) == (["cat", "dog"], [3, 7])
    assert [each.id for each in objects.images] == [5, 9, 2]
    first, second, empty = objects.images
    assert first.path == tmp_path / "images" / "train" / "5.png"
    assert first.size == (HEIGHT, WIDTH)
    assert first.boxes.tolist() == [[1.5, 2, 11.75, 10], [0, 0, WIDTH, HEIGHT]]
    assert first.labels.tolist() == [1, 0]
    assert first.areas.tolist() == [33.5, WIDTH * HEIGHT]
    assert (first.crowd.tolist(), second.crowd.tolist()) == ([False, False], [True])
    assert (first.boxes.dtype, first.labels.dtype, first.areas.dtype) == (torch.float32, torch.int64, torch.float32)
    assert (empty.boxes.shape, empty.labels.shape, empty.areas.shape) == ((0, 4), (0,), (0,))
    assert first.outlines == []
    assert objects.notes == [f"{tmp_path / 'annotations' / 'train.json'}: 1 of 3 images have no object"]


def test_an_image_is_read_and_some_are_taken(read):
    objects = read([image(1), image(2), image(3)], [annotation(1, 3)])
    taken = objects.take([2, 0])
    assert [each.id for each in taken.images] == [3, 1]
    assert len(taken) == 2
    assert taken.classes == objects.classes
    pixels = taken.read(0)
    assert pixels.shape == (3, HEIGHT, WIDTH)
    assert pixels[:, 4, 4].tolist() == [10, 20, 30]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_are_those_of_the_upright_picture(read, tmp_path, orientation):
    read([image(1)], [annotation(1)])
    turned = Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30))
    turned.paste((250, 0, 0), (2, 2, 12, 12))
    if orientation != 1:
        turned = turned.transpose({3: ROTATE_180, 6: ROTATE_90, 8: ROTATE_270}[orientation])  # as the camera stored it
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned.save(tmp_path / "images" / "train" / "1.png", exif=exif)
    objects = again(tmp_path)
    left, top, right, bottom = objects.images[0].boxes[0].int().tolist()
    red = objects.read(0)[0] == 250
    assert red[top:bottom, left:right].all()
    assert red.sum() == 100


def test_an_image_that_changed_since_names_its_file_when_it_is_read(read, tmp_path):
    objects = read([image(1)], [annotation(1)])
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "train" / "1.png")
    with refused("images/train/1.png is 8x6 pixels, its annotation says 40x30"):
        objects.read(0)


def test_classes_are_in_the_order_of_their_ids_however_the_file_lists_them(read):
    objects = read([image(1)], [annotation(1, category_id=7)], CATEGORIES[::-1])
    assert (objects.classes, objects.ids) == (["cat", "dog"], [3, 7])
    assert objects.images[0].labels.tolist() == [1]


@pytest.mark.parametrize(
    ("file", "folder", "name"),
    [
        ("instances_{}2017.json", "images/{}2017", "{}.png"),
        ("instances_{}2017.json", "{}2017", "{}.png"),
        ("{}.json", "images/{}", "{}.png"),
        ("{}.json", "{}", "{}.png"),
        ("instances_{}.json", "images", "{}.png"),
        ("instances_{}.json", "", "{}.png"),
        ("{}.json", "images/{}/city", "city/{}.png"),
        ("instances_{}2017.json", "images/{}2017", "{part}2017/{}.png"),
        ("instances_{}2017.json", "images/{}2017", "images/{part}2017/{}.png"),
        ("instances_{}2017.json", "{}2017", "{part}2017/{}.png"),
        ("{}.json", "images/{}/city", "{part}/city/{}.png"),
        ("{}.json", "pictures/{}", "pictures/{part}/{}.png"),
    ],
)
def test_both_parts_are_found_where_coco_has_them(tmp_path, file, folder, name):
    (tmp_path / "annotations").mkdir()
    for part, identity in (("train", 1), ("val", 2)):
        path = tmp_path / folder.format(part) / f"{identity}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), (identity, 0, 0)).save(path)
        entries = [image(identity, file_name=name.format(identity, part=part))]
        content = {"images": entries, "annotations": [annotation(1, identity)], "categories": CATEGORIES}
        (tmp_path / "annotations" / file.format(part)).write_text(json.dumps(content))
    train, val = load_objects(tmp_path)
    assert [int(part.read(0)[0, 0, 0]) for part in (train, val)] == [1, 2]
    assert [part.images[0].boxes.tolist() for part in (train, val)] == [[[2, 2, 12, 12]]] * 2


def test_test_stands_in_for_val(tmp_path):
    write_part(tmp_path, "train", [image(1)], [annotation(1)])
    write_part(tmp_path, "test", [image(2)], [annotation(1, 2)])
    assert [each.id for each in load_objects(tmp_path)[1].images] == [2]


def test_missing_folders_and_files_are_named(tmp_path):
    with refused("no folder", "nothing", "should hold annotations/ and the images"):
        load_objects(tmp_path / "nothing")
    with refused("has no annotations that are known: COCO's annotations/instances_train.json", "YOLO's data.yaml"):
        load_objects(tmp_path)
    write_part(tmp_path, "val", [image(1)], [annotation(1)])
    with refused("has no training images, only val"):
        load_objects(tmp_path)
    write_part(tmp_path, "train", [image(1)], [annotation(1)])
    with refused("has no test images; it has train, val"):
        load_objects(tmp_path, split="test")


def test_a_tenth_is_held_out_where_nothing_else_is(tmp_path):
    write_part(tmp_path, "train", [image(n) for n in range(20)], [annotation(n, n) for n in range(20)])
    train, val = load_objects(tmp_path)
    assert (len(train), len(val)) == (18, 2)
    assert sorted(each.id for part in (train, val) for each in part.images) == list(range(20))
    assert val.origin.startswith(f"held out of {tmp_path}")
    for name in ("person_keypoints_val2017", "stems"):  # of other tasks
        (tmp_path / "annotations" / f"{name}.json").write_text("{}")
    assert len(load_objects(tmp_path)[0]) == 18


@pytest.mark.parametrize(
    "name", ["annotations/instances_dev.json", "annotations/dev.json", "held/_annotations.coco.json"]
)
def test_what_may_be_a_part_by_another_name_is_refused_where_nothing_is_held_out(tmp_path, name):
    write_part(tmp_path, "train", [image(1), image(2)], [annotation(1), annotation(2, 2)])
    (tmp_path / "held").mkdir()
    (tmp_path / name).write_text("{}")
    with refused(f"{name} is of no part that is known", "train/ (training/)", "--val-data"):
        load_objects(tmp_path)
    write_part(tmp_path, "val", [image(3)], [annotation(1, 3)])
    assert len(load_objects(tmp_path)[1]) == 1


def test_parts_with_other_categories_are_refused(tmp_path):
    write_part(tmp_path, "train", [image(1)], [annotation(1)])
    write_part(tmp_path, "val", [image(2)], [annotation(1, 2)], CATEGORIES[::-1])
    assert load_objects(tmp_path)[1].classes == ["cat", "dog"]
    write_part(tmp_path, "val", [image(2)], [annotation(1, 2)], [CATEGORIES[0], {"id": 7, "name": "cow"}])
    with refused("val.json: the training images have no category cow"):
        load_objects(tmp_path)


def test_validation_may_lack_categories(tmp_path):
    """As where a tool writes those alone of which there are objects."""
    write_part(tmp_path, "train", [image(1)], [annotation(1, category_id=7)])
    write_part(tmp_path, "val", [image(2)], [annotation(1, 2)], [{"id": 3, "name": "dog"}])
    train, val = load_objects(tmp_path)
    assert train.notes == [f"{tmp_path}: no object to train on is of 1 of the 2 classes: cat"]
    assert val.notes == [f"{tmp_path}: no object to measure on is of 1 of the 2 classes: cat"]
    assert (val.classes, val.ids) == (["cat", "dog"], [4, 3])
    assert val.images[0].labels.tolist() == [1]


def test_what_is_measured_on_is_read_alone_for_a_model_of_known_classes(tmp_path):
    categories = [{"id": 3, "name": "dog"}]
    write_part(tmp_path, "test", [image(2)], [annotation(1, 2)], categories)
    objects = load_val_objects(tmp_path, ["cat", "dog"])
    assert (objects.classes, objects.images[0].labels.tolist()) == (["cat", "dog"], [1])
    write_part(tmp_path / "all", "train", [image(1), image(2)], [annotation(1, 2)], categories)
    assert len(load_val_objects(tmp_path, ["cat", "dog"], val_data=tmp_path / "all")) == 2
    assert len(load_val_objects(tmp_path / "all", ["cat", "dog"], seed=1)) == 1  # held out of it


def test_categories_are_the_same_by_their_names_whatever_their_ids(tmp_path):
    write_part(tmp_path, "train", [image(1)], [annotation(1)])
    other = [{"id": 5, "name": "dog"}, {"id": 9, "name": "cat"}]
    write_part(tmp_path, "val", [image(2)], [annotation(1, 2, category_id=5)], other)
    val = load_objects(tmp_path)[1]
    assert (val.classes, val.ids) == (["cat", "dog"], [9, 5])
    assert val.images[0].labels.tolist() == [1]


def test_categories_of_one_name_are_told_apart_only_where_one_is_used(read):
    """Roboflow writes the data set's name as a category without objects."""
    categories = [{"id": 0, "name": "cat"}, *CATEGORIES]
    objects = read([image(1)], [annotation(1)], categories)
    assert (objects.classes, objects.ids) == (["cat", "dog"], [3, 7])
    assert objects.notes[0].endswith("3 and 0 are both called 'cat'; the latter has no objects, and is left out")
    with refused("train.json: the categories 0 and 3 are both called 'cat', and both have objects; give each a name"):
        read([image(1)], [annotation(1), annotation(2, category_id=0)], categories)


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("crowd", [True, False])
def test_a_part_without_an_object_is_refused(tmp_path, part, crowd):
    for identity, name in enumerate(("train", "val")):
        there = [annotation(1, identity, iscrowd=int(name == part))]
        write_part(tmp_path, name, [image(identity)], there if crowd or name != part else [])
    with refused("none of the 1 images", part, "has an object, so there is nothing to"):
        load_objects(tmp_path)


def test_the_data_are_summed_up_for_the_start_of_a_run(tmp_path):
    write_part(tmp_path, "train", [image(1), image(2)], [annotation(1)])
    write_part(tmp_path, "val", [image(3)], [annotation(1, 3)])
    objects, _ = recipe._objects(Data(tmp_path), masks=False)
    assert objects.notes[0] == "classes: 2 (cat, dog)"
    assert objects.notes[1].startswith(f"training: 2 images, of {tmp_path}/images/train by the COCO json ")
    assert objects.notes[2].startswith(f"validation: 1 images, of {tmp_path}/images/val by the COCO json ")


def test_chosen_images_without_an_object_are_refused(tmp_path):
    write_part(tmp_path, "train", [image(1), image(2)], [annotation(1)])
    write_part(tmp_path, "val", [image(3)], [annotation(1, 3)])
    refusals = 0
    for seed in range(8):
        try:
            recipe._objects(Data(tmp_path, images=1, data_seed=seed), masks=False)
        except ValueError as error:
            refusals += "none of the 1 images of" in str(error)
    assert 0 < refusals < 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [{"id": 1, "file_na', ("train.json cannot be read as json", "cut short")),
        ("", ("train.json cannot be read as json",)),
        ("\x80", ("train.json cannot be read as json",)),
        ("[" * 100000, ("train.json cannot be read as json",)),
        ("[1, 2]", ("train.json is no COCO json: it holds a list",)),
        ('{"images": [], "categories": []}', ("train.json is no COCO json: it has no list of 'annotations'",)),
        ('{"images": {}, "categories": [], "annotations": []}', ("train.json", "it has no list of 'images'")),
        ('{"images": [3], "categories": [], "annotations": []}', ("train.json", "it has no list of 'images'")),
        ('{"images": [{}], "categories": [], "annotations": []}', ("train.json names no categories",)),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}], "annotations": []}', ("train.json names no images",)),
        ('{"images": [{}], "categories": [{"id": 1}], "annotations": []}', ("train.json", "category 1 has no 'name'")),
        ('{"images": [{}], "categories": [{"name": "a"}], "annotations": []}', ("train.json", "has no 'id'")),
    ],
)
@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_a_file_of_another_form_is_refused_whatever_is_skipped(read, tmp_path, text, words, on_bad):
    read([image(1)], [annotation(1)])
    (tmp_path / "annotations" / "train.json").write_bytes(text.encode("latin-1"))
    with refused(*words):
        again(tmp_path, on_bad=on_bad)


def test_a_category_that_is_defined_twice_is_refused(read):
    with refused("train.json defines the category 7 more than once"):
        read([image(1)], [annotation(1)], [*CATEGORIES, {"id": 7, "name": "cow"}], on_bad="skip")


def test_a_byte_order_mark_does_no_harm(read, tmp_path):
    read([image(1)], [annotation(1)])
    file = tmp_path / "annotations" / "train.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(again(tmp_path)) == 1


BAD_ANNOTATIONS = [
    ({"image_id": 99}, ("is of the image 99, which the file does not define",)),
    ({"image_id": ...}, ("is of the image None",)),
    ({"image_id": [1]}, ("is of the image [1]",)),
    ({"category_id": 4}, ("is of the category 4, which the file does not define",)),
    ({"category_id": ...}, ("is of the category None",)),
    ({"category_id": [3]}, ("is of the category [3]",)),
    ({"bbox": ...}, ("has the box None, not left, top, and a width and height above 0",)),
    ({"bbox": []}, ("has the box []",)),
    ({"bbox": [2, 2, 10]}, ("has the box [2, 2, 10]",)),
    ({"bbox": [2, 2, 10, 10, 10]}, ("has the box [2, 2, 10, 10, 10]",)),
    ({"bbox": [2, 2, 0, 10]}, ("has the box [2, 2, 0, 10], not left, top",)),
    ({"bbox": [2, 2, 10, -1]}, ("has the box [2, 2, 10, -1]",)),
    ({"bbox": [2, 2, float("nan"), 10]}, ("has the box [2, 2, nan, 10]",)),
    ({"bbox": [float("-inf"), 2, 10, 10]}, ("has the box [-inf, 2, 10, 10]",)),
    ({"bbox": [2, 2, 10**400, 10]}, ("has the box [2, 2, 1000",)),
    ({"bbox": ["2", "2", "10", "10"]}, ("has the box ['2'",)),
    ({"bbox": [-1.01, 2, 10, 10]}, ("has the box [-1.01, 2, 10, 10], outside its image", "1.png of 40x30 pixels")),
    ({"bbox": [2, -1.01, 10, 10]}, ("outside its image",)),
    ({"bbox": [31.01, 2, 10, 10]}, ("outside its image",)),
    ({"bbox": [2, 21.01, 10, 10]}, ("outside its image",)),
    ({"bbox": [WIDTH, 2, 0.5, 10]}, ("outside its image",)),
    ({"bbox": [2, -1, 10, 1]}, ("outside its image",)),
    ({"bbox": [25, 5, 35, 25]}, ("1.png of 40x30 pixels; if these are left, top, right and bottom",)),
    ({"category_id": "3"}, ("is of the category '3', which",)),
    ({"iscrowd": "0"}, ("has the iscrowd '0', not 0 or 1",)),
    ({"area": -1}, ("has the area -1",)),
    ({"area": "big"}, ("has the area big",)),
    ({"area": float("nan")}, ("has the area nan",)),
]


@pytest.mark.parametrize(("changes", "words"), BAD_ANNOTATIONS)
def test_an_annotation_that_makes_no_sense_is_refused_or_left_out(read, changes, words):
    entries = [image(1), image(2)], [annotation(1), annotation(2, **changes), annotation(3, 2)]
    with refused("train.json: annotation 2", *words, "(problems found: 1)", "mend the data", "--on-bad-data skip"):
        read(*entries)
    objects = read(*entries, on_bad="skip")
    assert [len(each.boxes) for each in objects.images] == [1, 1]
    assert len(objects.notes) == 1
    assert re.search(r"train\.json: left out 1 annotations .*, the first: annotation 2", objects.notes[0])


def test_an_image_may_be_named_as_on_windows(read, tmp_path):
    objects = read([image(1, file_name="train\\1.png")], [annotation(1)])
    assert objects.images[0].path == tmp_path / "images" / "train" / "1.png"


def test_boxes_in_fractions_of_the_image_are_refused(read):
    with refused("train.json: all 2 boxes lie between 0 and 1", "pixels, not fractions"):
        read([image(1)], [annotation(1, bbox=[0.1, 0.2, 0.3, 0.4]), annotation(2, bbox=[0.5, 0.5, 0.5, 0.5])])


@pytest.mark.parametrize(
    ("box", "clamped"),
    [
        ([-1, -0.5, 10, 10], [0, 0, 9, 9.5]),
        ([31, 21, 10, 10], [31, 21, WIDTH, HEIGHT]),
        ([-1, -1, WIDTH + 2, HEIGHT + 2], [0, 0, WIDTH, HEIGHT]),
        ([39.3, 2, 0.7, 10], [39.3, 2, WIDTH, 12]),
    ],
)
def test_a_box_that_reaches_a_pixel_over_the_edge_is_clamped(read, box, clamped):
    boxes = read([image(1)], [annotation(1, bbox=box)]).images[0].boxes
    torch.testing.assert_close(boxes, torch.tensor([clamped], dtype=torch.float32), rtol=0, atol=1e-5)
    assert boxes.min() >= 0
    assert (boxes <= torch.tensor([WIDTH, HEIGHT, WIDTH, HEIGHT])).all()


BAD_IMAGES = [
    ({"file_name": ...}, ("image 2 has no 'file_name'",)),
    ({"height": ...}, ("image 2 has no 'height'",)),
    ({"width": ...}, ("image 2 has no 'width'",)),
    ({"width": "40"}, ("image 2 has the width '40', not an integer",)),
    ({"height": 0}, ("image 2 has the height 0",)),
    ({"file_name": None}, ("image 2 has the file_name None",)),
    ({"file_name": "none.png"}, ("images/train/none.png does not exist",)),
    ({"file_name": ""}, ("images/train does not exist",)),
    ({"file_name": "a\0.png"}, ("does not exist",)),
    ({"file_name": "a" * 5000}, ("does not exist",)),
    ({"file_name": "../outside.png"}, ("image 2 is ../outside.png, which leads outside", "images/train")),
    ({"file_name": "sub/../../outside.png"}, ("which leads outside",)),
    ({"file_name": "..\\outside.png"}, ("which leads outside",)),
    ({"file_name": "text.png"}, ("images/train/text.png cannot be read as an image",)),
    ({"width": WIDTH + 1}, ("images/train/2.png is 40x30 pixels, its annotation says 41x30",)),
    ({"height": WIDTH, "width": HEIGHT}, ("images/train/2.png is 40x30 pixels, its annotation says 30x40",)),
]


@pytest.fixture
def around(tmp_path):
    """Files that a name may lead to."""
    (tmp_path / "images" / "train" / "sub").mkdir(parents=True)
    (tmp_path / "images" / "train" / "text.png").write_text("no image")
    outside = tmp_path / "images" / "outside.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(outside)
    return outside


@pytest.mark.parametrize(("changes", "words"), BAD_IMAGES)
def test_an_image_that_cannot_be_used_is_refused_or_left_out_with_its_annotations(read, around, changes, words):
    bad = {key: value for key, value in image(2, **changes).items() if value is not ...}
    entries = [image(1), bad, image(3)], [annotation(1), annotation(2, 2), annotation(3, 2, bbox=[]), annotation(4, 3)]
    with refused("train.json: ", *words, "(problems found: 1)", "--on-bad-data skip"):
        read(*entries)
    objects = read(*entries, on_bad="skip")
    assert [each.id for each in objects.images] == [1, 3]
    assert [len(each.boxes) for each in objects.images] == [1, 1]
    assert re.search(r"train\.json: left out 1 images|train\.json: left out 1 \w+ images", objects.notes[0])
    assert objects.notes[1].endswith("train.json: left out 2 annotations with their images")
    assert len(objects.notes) == 2


def test_an_absolute_name_is_refused(read, around):
    with refused(f"image 1 is {around}, which leads outside"):
        read([image(1, file_name=str(around))], [])


def test_an_image_without_id_is_left_out(read, tmp_path):
    read([image(1)], [])
    file = tmp_path / "annotations" / "train.json"
    content = json.loads(file.read_text())
    content["images"] += [{"file_name": "1.png", "height": HEIGHT, "width": WIDTH}, image([2])]
    file.write_text(json.dumps(content))
    with refused("image None has no 'id'", "(problems found: 2)"):
        again(tmp_path)
    objects = again(tmp_path, on_bad="skip")
    assert [each.id for each in objects.images] == [1]
    assert "left out 2 images without what they need, the first: image None has no 'id'" in objects.notes[0]


def test_images_that_share_an_id_are_all_left_out(read):
    """Nobody knows of which of them the annotations are."""
    entries = [image(1), image(2), image(2, file_name="1.png")], [annotation(1), annotation(2, 2)]
    with refused("image 2, 2.png, has an id that another image has too (problems found: 2)"):
        read(*entries)
    objects = read(*entries, on_bad="skip")
    assert [each.id for each in objects.images] == [1]
    assert "left out 2 images with the id of another" in objects.notes[0]
    assert "left out 1 annotations with their images" in objects.notes[1]


def test_each_kind_of_problem_is_counted_with_its_first(read):
    annotations = [
        annotation(1, 9),
        annotation(2),
        annotation(3, bbox=[]),
        annotation(4, 8),
        annotation(5, 7, bbox=[]),
        annotation(6, category_id=1, bbox=[]),
    ]
    entries = [image(1), image(2, height=5), image(3, width=5), image(4, file_name="none.png")], annotations
    with refused("2.png is 40x30 pixels, its annotation says 40x5 (problems found: 8)"):
        read(*entries)
    notes = [note.partition("train.json: ")[2] for note in read(*entries, on_bad="skip").notes]
    expected = [
        ("left out 2 images of another size, the first: ", "2.png is 40x30"),
        ("left out 1 missing images, the first: ", "none.png"),
        ("left out 3 annotations of unknown images, the first: ", "annotation 1 is of the image 9"),
        ("left out 1 annotations without a proper box, the first: ", "annotation 3"),
        ("left out 1 annotations of unknown categories, the first: ", "annotation 6"),
    ]
    assert len(notes) == len(expected)
    for note, (start, end) in zip(notes, expected, strict=True):
        assert note.startswith(start)
        assert end in note


def test_a_file_of_which_nothing_is_left_is_refused(read):
    entries = [image(1, height=5), image(2, height=5)], [annotation(1)]
    with refused("train.json: ", "1.png is 40x30 pixels", "(problems found: 2); mend the data"):
        read(*entries, on_bad="skip")


BAD_OUTLINES = [
    (..., "no outline"),
    (None, "no outline"),
    ([], "no outline"),
    ("abc", "the outline 'abc'"),
    ([[]], "the polygon []"),
    ([[2, 2, 12, 12]], "the polygon [2, 2, 12, 12], not three or more pairs of numbers"),
    ([*TRIANGLE, [2, 2, 12, 2, 12, 12, 3]], "the polygon [2, 2, 12, 2, 12, 12, 3]"),
    ([2, 2, 12, 2, 12, 12], "the polygon 2"),
    ([[2, 2, 12, float("nan"), 12, 12]], "the polygon [2, 2, 12, nan"),
    ([[2, 2, 12, "2", 12, 12]], "the polygon [2, 2, 12, '2'"),
    ([[2, 2, 1e9, 2, 12, 12]], "a polygon from 2 to 1000000000.0, of 40 pixels"),
    ({"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}, "run lengths for the size [40, 30], not [30, 40]"),
    ({"counts": [WIDTH * HEIGHT]}, "run lengths for the size None"),
    ({"size": [HEIGHT, WIDTH]}, "the run lengths None"),
    ({"size": [HEIGHT, WIDTH], "counts": [3, 4]}, "run lengths of 7 pixels, not 1200"),
    ({"size": [HEIGHT, WIDTH], "counts": [3, -4, 1201]}, "the run lengths [3, -4, 1201]"),
    ({"size": [HEIGHT, WIDTH], "counts": [0.5, 1199.5]}, "the run lengths [0.5"),
    ([[2, 2, 12, 12, 22, 22]], "the outline [[2, 2, 12, 12, 22, 22]], of no area in its image of 40x30 pixels"),
    ([[-9, 2, -2, 2, -2, 12]], "of no area in its image"),
    ([[2, 31, 12, 31, 12, 40]], "of no area in its image"),
    ({"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}, "run lengths of no pixel"),
    ({"size": [HEIGHT, WIDTH], "counts": "`U1"}, "run lengths of no pixel"),
    ({"size": [HEIGHT, WIDTH], "counts": "34="}, "run lengths that cannot be decoded"),
    ({"size": [HEIGHT, WIDTH], "counts": ""}, "run lengths that cannot be decoded"),
    ({"size": [HEIGHT, WIDTH], "counts": "\xff~é"}, "run lengths that cannot be decoded"),
]


@pytest.mark.parametrize(("outline", "words"), BAD_OUTLINES)
def test_an_outline_that_cannot_be_drawn_is_refused_or_left_out_where_outlines_are_wanted(read, outline, words):
    annotations = [annotation(1, segmentation=TRIANGLE), annotation(2, segmentation=outline)]
    with refused("annotation 2 has", words, "1.png"):
        read([image(1)], annotations, outlines=True)
    objects = read([image(1)], annotations, outlines=True, on_bad="skip")
    assert len(objects.images[0].boxes) == 1
    assert objects.images[0].outlines == [TRIANGLE]
    assert "left out 1 annotations without a proper outline" in objects.notes[0]
    plain = read([image(1)], annotations)
    assert len(plain.images[0].boxes) == 2
    assert plain.images[0].outlines == []


def test_a_polygon_may_reach_over_the_edge(read):
    outline = [[-5, 2, WIDTH + 5, 2, 12, HEIGHT + 5]]
    assert read([image(1)], [annotation(1, segmentation=outline)], outlines=True).images[0].outlines == [outline]


def unpacked(archive, folder):
    if not (SHARED / archive).is_file():
        pytest.skip(f"no {archive} in ../shared/data: bring your own to run this")
    with zipfile.ZipFile(SHARED / archive) as content:
        content.extractall(folder)
    return folder / archive.removesuffix(".zip")


@pytest.mark.shared_data
def test_photographs_of_blood_cells_are_read(tmp_path):
    train, val = load_objects(unpacked("bccd.zip", tmp_path))
    assert (len(train), len(val)) == (205, 87)
    assert train.classes == val.classes == ["RBC", "WBC", "Platelets"]
    assert [sum(len(image.boxes) for image in part.images) for part in (train, val)] == [2804, 1137]
    assert train.read(0).shape == (3, 480, 640)
    with refused("annotation 1 has no outline"):
        load_objects(tmp_path / "bccd", outlines=True)


@pytest.mark.shared_data
def test_photographs_of_coco_are_read(tmp_path):
    train, val = load_objects(unpacked("coco128.zip", tmp_path), outlines=True)
    assert (len(train), len(val)) == (100, 100)
    assert len(train.classes) == 80
    assert [sum(len(image.outlines) for image in part.images) for part in (train, val)] == [745, 712]
    assert all(train.read(index).shape[1:] == train.images[index].size for index in range(0, 100, 20))
