"""Objects as other tools write them."""

import pickle
import re
import shutil

import pytest
import torch
from PIL import Image

from limbeck.tasks.detection.load import load_objects
from limbeck.tasks.detection.voc import find_voc
from tests.tasks.detection.test_dataset import annotation, image, refused, write_part

HEIGHT, WIDTH = 30, 40
BOX = "0.5 0.5 0.25 0.2"  # 15 to 25 across, 12 to 18 down


def paint(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (10, 20, 30)).save(path)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def yolo(tmp_path):
    """As Roboflow and ultralytics write it."""
    write(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: [cat, dog]\n")
    for part, stems in (("train", "abc"), ("valid", "x")):
        for stem in stems:
            paint(tmp_path / part / "images" / f"{stem}.jpg")
            write(tmp_path / part / "labels" / f"{stem}.txt", f"1 {BOX}\n")
    return tmp_path


def test_boxes_of_yolo_are_fractions_of_the_image(yolo):
    write(yolo / "train" / "labels" / "b.txt", "0 0.5 0.5 1 1\n\n1 0.1 0.1 0.2 0.2\n")
    (yolo / "train" / "labels" / "c.txt").unlink()
    train, val = load_objects(yolo)
    assert train.classes == val.classes == ["cat", "dog"]
    assert [each.path.name for each in train.images] == ["a.jpg", "b.jpg", "c.jpg"]
    torch.testing.assert_close(train.images[0].boxes, torch.tensor([[15.0, 12, 25, 18]]))
    torch.testing.assert_close(train.images[1].boxes, torch.tensor([[0.0, 0, 40, 30], [0, 0, 8, 6]]))
    assert [each.labels.tolist() for each in train.images] == [[1], [0, 1], []]
    assert train.images[0].areas.tolist() == pytest.approx([60])
    assert any("1 of 3 images have no object" in note for note in train.notes)
    assert train.origin.endswith(f"with YOLO's text files, by {yolo / 'data.yaml'}")


def test_lines_of_yolo_for_segmentation_are_outlines(yolo):
    for path in yolo.glob("*/labels/*.txt"):
        write(path, "0 0.25 0.2 0.5 0.2 0.5 0.6\n")
    train, _ = load_objects(yolo, outlines=True)
    torch.testing.assert_close(train.images[0].boxes, torch.tensor([[10.0, 6, 20, 18]]))
    assert train.images[0].outlines[0][0] == pytest.approx([10, 6, 20, 6, 20, 18])
    write(yolo / "train" / "labels" / "a.txt", f"0 {BOX}\n")
    with refused("labels/a.txt, line 1, has no outline"):
        load_objects(yolo, outlines=True)


@pytest.mark.parametrize(
    ("content", "stems"),
    [
        ("train: train/images\nval: valid/images\nnames: {0: cat, 1: dog}\n", ("abc", "x")),
        ("path: .\ntrain: [train/images, valid/images]\nval: valid/images\nnames: [cat, dog]\n", ("abcx", "x")),
        ("train: train.txt\nval: valid/images\nnames: [cat, dog]\n", ("b", "x")),
        ("train: valid/images\nval: train/images\ntest: valid/images\nnames: [cat, dog]\n", ("x", "abc")),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_yaml_says_where_images_are_in_several_ways(yolo, content, stems, named):
    write(yolo / "train.txt", "./train/images/b.jpg\n")
    (yolo / "data.yaml").unlink()
    write(yolo / "mine.yaml", content)
    parts = load_objects(yolo / "mine.yaml" if named else yolo)
    assert tuple("".join(each.path.stem for each in part.images) for part in parts) == stems


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 " + BOX, "is of the category 2, which the file does not define"),
        ("0 0.5 0.5 0.25", "has the box 0 0.5 0.5 0.25, not left, top"),
        ("cat " + BOX, "is of the category 'cat'"),
        ("0 15 12 10 6", "outside its image"),
        ("0 0.5 0.5 0 0.2", "not left, top, and a width and height above 0"),
    ],
)
def test_a_line_of_yolo_that_makes_no_sense_is_told_by_its_number(yolo, line, words):
    write(yolo / "train" / "labels" / "b.txt", f"0 {BOX}\n{line}\n")
    with refused("labels/b.txt, line 2,", words, "--on-bad-data skip"):
        load_objects(yolo)
    assert [len(each.boxes) for each in load_objects(yolo, on_bad="skip")[0].images] == [1, 1, 1]


def test_a_yaml_may_call_the_validation_images_as_exporters_do(yolo):
    write(yolo / "data.yaml", "train: train/images\nvalid: valid/images\nnames: [cat, dog]\n")
    assert [each.path.stem for each in load_objects(yolo)[1].images] == ["x"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("train: train/images\nval: valid/images\n", "has no names"),
        ("train: nowhere\nval: valid/images\nnames: [cat, dog]\n", "its train images should be in"),
        ("train: train/images\nnc: 3\nnames: [cat, dog]\n", "nc is 3, but names lists 2 classes; correct one"),
        ("names: [cat", "is no yaml"),
        ("- a\n", "should say names, train and val"),
    ],
)
def test_a_yaml_that_is_wrong_is_told(yolo, content, words):
    write(yolo / "data.yaml", content)
    with refused("data.yaml", words):
        load_objects(yolo)


def test_of_several_yamls_one_is_to_be_named(yolo):
    file = next(yolo.glob("*.yaml"))
    shutil.copy(file, yolo / "second.yaml")
    file.rename(yolo / "first.yaml")
    with refused("YOLO's data.yaml", "it has first.yaml, second.yaml: name one with --data"):
        load_objects(yolo)
    assert load_objects(yolo / "second.yaml")


def test_images_of_another_ending_are_told_by_it(yolo):
    for path in (yolo / "valid" / "images").iterdir():
        path.rename(path.with_suffix(".heic"))
    with refused("data.yaml: ", "valid/images holds no image (its files end in .heic); the endings read are .bmp"):
        load_objects(yolo)
    write(yolo / "valid.txt", "\n")
    write(yolo / "data.yaml", "train: train/images\nval: valid.txt\nnames: [cat, dog]\n")
    with refused("valid.txt lists no image"):
        load_objects(yolo)


def test_an_image_that_cannot_be_read_is_left_out_of_yolo(yolo):
    (yolo / "train" / "images" / "b.jpg").write_bytes(b"no image")
    with refused("train/images/b.jpg cannot be read as an image"):
        load_objects(yolo)
    assert [each.path.stem for each in load_objects(yolo, on_bad="skip")[0].images] == ["a", "c"]


def test_cocos_json_is_read_as_roboflow_writes_it(tmp_path):
    write_part(tmp_path, "train", [image(1)], [annotation(1)])
    write_part(tmp_path, "valid", [image(2)], [annotation(1, 2)])
    for part in ("train", "valid"):
        (tmp_path / "images" / part).rename(tmp_path / part)
        (tmp_path / "annotations" / f"{part}.json").rename(tmp_path / part / "_annotations.coco.json")
    train, val = load_objects(tmp_path)
    assert [each.path for part in (train, val) for each in part.images] == [
        tmp_path / "train" / "1.png",
        tmp_path / "valid" / "2.png",
    ]


OBJECT = """<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>16</xmin><ymin>13</ymin><xmax>25</xmax>
<ymax>18</ymax></bndbox></object>"""


def xml(*objects):
    return f"<annotation><filename>else.jpg</filename>{''.join(OBJECT.format(*each) for each in objects)}</annotation>"


@pytest.fixture
def voc(tmp_path):
    for stem, objects in (("a", [("dog", 0), ("cat", 1)]), ("b", []), ("c", [("cat", 0)])):
        paint(tmp_path / "JPEGImages" / f"{stem}.jpg")
        write(tmp_path / "Annotations" / f"{stem}.xml", xml(*objects))
    write(tmp_path / "ImageSets" / "Main" / "train.txt", "a\nb\n")
    write(tmp_path / "ImageSets" / "Main" / "val.txt", "c  1\n")
    write(tmp_path / "ImageSets" / "Main" / "cat_train.txt", "a 1\n")
    return tmp_path


def test_xml_files_of_pascal_voc_are_read_with_difficult_objects_as_crowds(voc):
    train, val = load_objects(voc)
    assert train.classes == val.classes == ["cat", "dog"]
    assert [each.path.name for each in train.images] == ["a.jpg", "b.jpg"]
    assert train.images[0].boxes.tolist() == [[15, 12, 25, 18]] * 2
    assert train.images[0].labels.tolist() == [1, 0]
    assert train.images[0].crowd.tolist() == [False, True]
    assert (len(train.images[1].boxes), val.images[0].labels.tolist()) == (0, [0])
    with refused("xml files of Pascal VOC, which give boxes alone"):
        load_objects(voc, outlines=True)


def test_xml_files_may_lie_beside_their_images(tmp_path):
    for part, stem in (("train", "a"), ("valid", "b")):
        paint(tmp_path / part / f"{stem}.jpg")
        write(tmp_path / part / f"{stem}.xml", xml(("cat", 0)))
    train, val = load_objects(tmp_path)
    assert [each.path.name for part in (train, val) for each in part.images] == ["a.jpg", "b.jpg"]


def test_xml_files_beside_their_images_are_those_of_the_same_folder(tmp_path):
    for folder, kind in (("one", "cat"), ("two", "dog")):
        paint(tmp_path / "train" / folder / "a.jpg")
        write(tmp_path / "train" / folder / "a.xml", xml((kind, 0)))
    paint(tmp_path / "train" / "images" / "b.jpg")
    write(tmp_path / "train" / "xmls" / "b.xml", xml(("emu", 0)))
    train = find_voc(tmp_path, "error")["train"](None)
    kinds = {str(each.path.relative_to(tmp_path)): train.classes[each.labels[0]] for each in train.images}
    assert kinds == {"train/one/a.jpg": "cat", "train/two/a.jpg": "dog", "train/images/b.jpg": "emu"}
    write(tmp_path / "train" / "more" / "b.xml", xml(("cat", 0)))
    with refused("b.jpg has several xml files of its name in other folders, ", "more/b.xml and ", "xmls/b.xml"):
        load_objects(tmp_path)


def test_an_image_without_an_xml_file_beside_it_is_counted_and_one_without_its_image_told(tmp_path):
    for stem in "abc":
        paint(tmp_path / "train" / f"{stem}.jpg")
        write(tmp_path / "train" / f"{stem}.xml", xml(("cat", 0)))
    paint(tmp_path / "train" / "d.jpg")
    write(tmp_path / "train" / "of_a_tool.xml", "<project/>")
    paint(tmp_path / "valid" / "d.jpg")
    write(tmp_path / "valid" / "d.xml", xml(("cat", 0)))
    train, _ = load_objects(tmp_path)
    assert [each.path.name for each in train.images] == ["a.jpg", "b.jpg", "c.jpg"]
    assert train.notes == [f"{tmp_path / 'train'}: 1 images have no xml file, and are left out"]
    (tmp_path / "train" / "a.jpg").unlink()
    with refused("the image of ", "a.xml, does not exist"):
        load_objects(tmp_path)
    train, _ = load_objects(tmp_path, on_bad="skip")
    assert [each.path.name for each in train.images] == ["b.jpg", "c.jpg"]
    assert "left out 1 missing images" in train.notes[0]


@pytest.mark.parametrize("parts", [("train", "held"), ("seg_train", "seg_test")])
def test_folders_of_xml_files_that_may_be_parts_by_other_names_are_refused(tmp_path, parts):
    for part in parts:
        for stem in "ab":
            paint(tmp_path / part / f"{stem}.jpg")
            write(tmp_path / part / f"{stem}.xml", xml(("cat", 0)))
    with refused("is of no part that is known; known names are train/"):
        load_objects(tmp_path)


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT + 1), (HEIGHT, WIDTH), (0, 0)])
def test_an_xml_file_of_an_image_of_another_size_is_told(voc, size):
    stated = "<annotation><size><width>{}</width><height>{}</height></size>".format(*size)
    write(voc / "Annotations" / "c.xml", xml(("cat", 0)).replace("<annotation>", stated))
    if size == (0, 0):  # as some tools write it
        assert len(load_objects(voc)[1]) == 1
        return
    with refused(f"c.jpg is {WIDTH}x{HEIGHT} pixels, its annotation says {size[0]}x{size[1]}"):
        load_objects(voc)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (xml(("emu", 0)), ("object 1, is of the category 'emu'",)),
        (xml(("cat", 0)).replace("<xmin>16", "<xmin>none"), ("object 1, has the box of no four numbers",)),
        ("<annotation>", ("c.xml cannot be read as xml",)),
        (None, ("c.xml cannot be read as xml", "No such file")),
    ],
)
def test_an_xml_file_that_makes_no_sense_is_told(voc, text, words):
    (voc / "Annotations" / "c.xml").unlink()
    if text is not None:
        write(voc / "Annotations" / "c.xml", text)
    with refused("c.xml", *(re.sub("^c.xml ", "", each) for each in words)):
        load_objects(voc)


def test_a_listed_image_that_is_missing_is_told(voc):
    (voc / "JPEGImages" / "a.jpg").unlink()
    with refused("JPEGImages/a, the image of ", "a.xml, does not exist"):
        load_objects(voc)


def test_objects_go_to_a_worker_without_a_tensor_of_their_own(voc):
    """Each tensor would take a file descriptor, and COCO has half a million."""
    train, _ = load_objects(voc)
    assert not any(isinstance(each, torch.Tensor) for each in train.images[0].__getstate__().values())
    again = pickle.loads(pickle.dumps(train))
    assert torch.equal(again.images[0].boxes, train.images[0].boxes)
    assert again.images[0].crowd.dtype == torch.bool
