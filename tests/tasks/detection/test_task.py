import contextlib
import copy
import io
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from pycocotools import mask as runs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import nn

from limbeck.tasks.detection import task as detection
from limbeck.tasks.detection.dataset import Annotated, Objects
from limbeck.tasks.detection.task import Detection, as_coco, in_pixels_of, masks_at, precision

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'

IDS, NAMES = [3, 7, 90], ["cat", "dog", "kite"]
SIZE = (150, 180)
SUFFIXES = ("", "50", "75", "_small", "_medium", "_large")


class Says(nn.Module):
    """A detector that says what it was told of an image, whose number is its colour."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def forward(self, images):
        assert not self.training
        assert not torch.is_grad_enabled()
        return [self.said[round(image[0, 0, 0].item() * 255)] for image in images]


def batches(*shown, together=2):
    """Images of these heights and widths, each of one colour, its number."""
    images = [torch.full((3, *size), index, dtype=torch.uint8) for index, size in enumerate(shown)]
    numbered = list(enumerate(images))
    for start in range(0, len(images), together):
        part = numbered[start : start + together]
        yield {"index": [index for index, _ in part], "image": [image for _, image in part]}


def objects_of(raw):
    """As they would be read from a COCO json."""
    images = []
    for entry in raw["images"]:
        own = [each for each in raw["annotations"] if each["image_id"] == entry["id"]]
        boxes = torch.tensor([each["bbox"] for each in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        images.append(
            Annotated(
                id=entry["id"],
                path=Path(f"{entry['id']}.png"),
                size=(entry["height"], entry["width"]),
                boxes=boxes.float(),
                labels=torch.tensor([IDS.index(each["category_id"]) for each in own], dtype=torch.int64),
                crowd=torch.tensor([bool(each["iscrowd"]) for each in own], dtype=torch.bool),
                areas=torch.tensor([each["area"] for each in own], dtype=torch.float32),
                outlines=[each["segmentation"] for each in own],
            )
        )
    return Objects(images, NAMES, IDS)


def raw_of(annotations, count):
    images = [{"id": 10 * number + 5, "height": SIZE[0], "width": SIZE[1]} for number in range(count)]
    return {
        "images": images,
        "annotations": [{"id": number + 1, **each} for number, each in enumerate(annotations)],
        "categories": [{"id": each, "name": name} for each, name in zip(IDS, NAMES, strict=True)],
    }


def random_box(rng, longest):
    width, height = rng.integers(16, 4 * longest, 2) / 4  # quarters of pixels, which float32 holds
    left, top = rng.integers(0, 4 * (SIZE[1] - width)) / 4, rng.integers(0, 4 * (SIZE[0] - height)) / 4
    return [float(each) for each in (left, top, width, height)]


def triangle(box):
    left, top, width, height = box
    return [[left, top, left + width, top, left, top + height]]


def drawn(outline):
    encoded = outline if isinstance(outline, dict) else runs.merge(runs.frPyObjects(outline, *SIZE))
    encoded = runs.frPyObjects(encoded, *SIZE) if isinstance(encoded["counts"], list) else encoded
    return runs.decode(encoded)


def counts(mask):
    """Run lengths that are not compressed, as crowds have them in COCO."""
    flat = mask.flatten(order="F")
    edges = numpy.flatnonzero(numpy.diff(flat)) + 1
    lengths = numpy.diff([0, *edges, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": [0, *lengths] if flat[0] else lengths}


def random_truth(rng, images=10):
    """Triangles small, medium and large; the first two images have none, and some are crowds."""
    annotations = []
    for number in range(2, images):
        for _ in range(rng.integers(1, 7)):
            box = random_box(rng, rng.choice([30, 90, 140]))
            crowd = int(rng.random() < 0.2)
            mask = drawn(triangle(box))
            annotations.append(
                {
                    "image_id": 10 * number + 5,
                    "category_id": int(rng.choice(IDS)),
                    "bbox": box,
                    "segmentation": counts(mask) if crowd else triangle(box),
                    "area": float(mask.sum()),
                    "iscrowd": crowd,
                }
            )
    return raw_of(annotations, images)


def random_results(rng, raw):
    """Objects near the true ones, not always of their class, and others; those of each image by falling score."""
    found = []
    for image in raw["images"]:
        near = [each for each in raw["annotations"] if each["image_id"] == image["id"] for _ in range(2)]
        for truth in [*near, None, None]:
            box = random_box(rng, 60)
            if truth:
                left, top, width, height = (rng.normal(each, 2) for each in truth["bbox"])
                box = [max(left, 0.0), max(top, 0.0), max(width, 3.0), max(height, 3.0)]
            same = truth and rng.random() < 0.8
            result = {"image_id": image["id"], "category_id": truth["category_id"] if same else int(rng.choice(IDS))}
            mask = drawn(triangle(box))
            found.append({**result, "bbox": box, "score": float(rng.permutation(1000)[0] / 1000), "mask": mask})
    return found


def as_said(raw, results):
    """The same as a detector of torchvision says it."""
    said = []
    for image in raw["images"]:
        own = [each for each in results if each["image_id"] == image["id"]]
        boxes = torch.tensor([each["bbox"] for each in own], dtype=torch.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = numpy.stack([each["mask"] for each in own]) if own else numpy.zeros((0, *SIZE))
        said.append(
            {
                "boxes": boxes,
                "labels": torch.tensor([IDS.index(each["category_id"]) + 1 for each in own], dtype=torch.int64),
                "scores": torch.tensor([each["score"] for each in own], dtype=torch.float64),
                "masks": torch.from_numpy(masks)[:, None] * 0.9,
            }
        )
    return said


def by_pycocotools(raw, results, kind):
    """The first six numbers; masks are given without boxes, as COCO wants them."""
    if kind == "segm":
        results = [
            {
                **{name: value for name, value in each.items() if name not in ("bbox", "mask")},
                "segmentation": runs.encode(numpy.asfortranarray(each["mask"])),
            }
            for each in results
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, said = COCO(), COCO()
        truth.dataset = copy.deepcopy(raw)
        truth.createIndex()
        if results:
            said = truth.loadRes(results)
        else:
            said.dataset = {**copy.deepcopy(raw), "annotations": []}
            said.createIndex()
        measured = COCOeval(truth, said, kind)
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return measured.stats[:6].tolist()


def named(prefix, values):
    return {prefix + suffix: value for suffix, value in zip(SUFFIXES, values, strict=True)}


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_of_boxes_and_masks_is_that_of_pycocotools(seed):
    rng = numpy.random.default_rng(seed)
    raw = random_truth(rng)
    results = random_results(rng, raw)
    model = Says(as_said(raw, results)).train()
    metrics = Detection(objects_of(raw), masks=True).evaluate(model, batches(*[SIZE] * len(raw["images"]), together=3))
    plain = [{name: value for name, value in each.items() if name != "mask"} for each in results]
    boxes, masks = by_pycocotools(raw, plain, "bbox"), by_pycocotools(raw, results, "segm")
    assert metrics == pytest.approx(named("box_ap", boxes) | named("mask_ap", masks), abs=1e-6)
    assert all(0.05 < value < 0.98 for value in (*boxes[:3], *masks[:3])), "neither all right nor all wrong"
    assert len(set(masks)) == 6
    assert model.training


def test_boxes_alone_are_measured_where_no_masks_are_wanted():
    rng = numpy.random.default_rng(0)
    raw = random_truth(rng)
    results = random_results(rng, raw)
    said = [{name: value for name, value in each.items() if name != "masks"} for each in as_said(raw, results)]
    metrics = Detection(objects_of(raw)).evaluate(Says(said), batches(*[SIZE] * len(raw["images"])))
    plain = [{name: value for name, value in each.items() if name != "mask"} for each in results]
    assert metrics == pytest.approx(named("box_ap", by_pycocotools(raw, plain, "bbox")), abs=1e-6)


def test_background_that_a_head_finds_is_no_object_of_the_last_class():
    rng = numpy.random.default_rng(0)
    raw = random_truth(rng)
    of_masks = as_said(raw, random_results(rng, raw))
    plain = [{name: value for name, value in each.items() if name != "masks"} for each in of_masks]
    background = {"boxes": torch.tensor([[1.0, 1, 9, 9]]), "labels": torch.zeros(1, dtype=torch.int64)}
    background["scores"] = torch.ones(1)
    further = [{name: torch.cat([background[name], each[name]]) for name in each} for each in plain]
    task = Detection(objects_of(raw))
    found, expected = (task.evaluate(Says(each), batches(*[SIZE] * len(raw["images"]))) for each in (further, plain))
    assert found == expected


def test_a_crowd_is_neither_missed_nor_wrong():
    rng = numpy.random.default_rng(1)
    raw = random_truth(rng)
    results = random_results(rng, raw)
    counted = copy.deepcopy(raw)
    for each in counted["annotations"]:
        each["iscrowd"] = 0
    said, shown = as_said(raw, results), [SIZE] * len(raw["images"])
    with_crowds = Detection(objects_of(raw)).evaluate(Says(said), batches(*shown))
    without = Detection(objects_of(counted)).evaluate(Says(said), batches(*shown))
    assert abs(with_crowds["box_ap"] - without["box_ap"]) > 1e-3


def test_no_detections_at_all_are_worth_nothing():
    raw = random_truth(numpy.random.default_rng(2))
    metrics = Detection(objects_of(raw), masks=True).evaluate(
        Says(as_said(raw, [])), batches(*[SIZE] * len(raw["images"]))
    )
    boxes = by_pycocotools(raw, [], "bbox")
    assert metrics == named("box_ap", boxes) | named("mask_ap", boxes)
    assert metrics["mask_ap"] == 0


def test_average_precision_is_what_one_counts_by_hand():
    truth = [[0, 0, 50, 40], [100, 50, 50, 40]]
    annotations = [
        {"image_id": 5, "category_id": 7, "bbox": box, "area": 2000.0, "iscrowd": 0, "segmentation": triangle(box)}
        for box in truth
    ]
    said = {
        "boxes": torch.tensor([[0.0, 0, 50, 40], [0, 100, 50, 140], [100, 50, 131, 90]]),
        "labels": torch.tensor([2, 2, 2]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
    }
    metrics = Detection(objects_of(raw_of(annotations, 1))).evaluate(Says([said]), batches(SIZE))
    # Right, wrong, and right where an overlap of 0.62 is enough: for 3 of the 10 thresholds. Of 101 recalls, 51 are
    # up to a half; beyond, 2 of 3 are right.
    most, half = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert metrics == pytest.approx(
        named("box_ap", [0.3 * most + 0.7 * half, most, half, -1, 0.3 * most + 0.7 * half, -1])
    )
    said["labels"] = torch.tensor([2, 2, 1])
    metrics = Detection(objects_of(raw_of(annotations, 1))).evaluate(Says([said]), batches(SIZE))
    assert metrics["box_ap50"] == pytest.approx(half), "of another class it is not found"


@pytest.fixture
def found(monkeypatch):
    """What is handed over to be measured."""
    handed = []
    monkeypatch.setattr(detection, "precision", lambda _, found, kind: handed.append(found) or ([0.0] * 6, [0.0]))
    return handed


def image_of(size, number=0):
    none = torch.zeros(0)
    return Annotated(number, Path("a.png"), size, none.reshape(0, 4), none.long(), none.bool(), none)


def said_of(boxes, **further):
    count = len(boxes)
    return {
        "boxes": torch.tensor(boxes),
        "labels": torch.arange(count) % len(IDS) + 1,
        "scores": torch.linspace(0.75, 0.5, count),
        **further,
    }


def test_categories_are_given_back_by_their_ids_in_the_json(found):
    boxes = [[1.0, 2, 11, 22]] * 4
    Detection(Objects([image_of((20, 30), 42)], NAMES, IDS)).evaluate(Says([said_of(boxes)]), batches((20, 30)))
    assert [each["category_id"] for each in found[0]] == [3, 7, 90, 3]
    assert [each["bbox"] for each in found[0]] == [[1, 2, 10, 20]] * 4
    assert [each["score"] for each in found[0]] == pytest.approx([0.75, 2 / 3, 0.5833333, 0.5])
    assert {each["image_id"] for each in found[0]} == {42}


def test_boxes_return_to_the_pixels_of_the_file_by_each_axis(found):
    height, width = 101, 67
    shown = (64, 42)  # rounded, so that the factors are 1.578 and 1.595
    boxes = [[0.0, 0, 42, 64], [21, 16, 42, 48]]
    Detection(Objects([image_of((height, width))], NAMES, IDS)).evaluate(Says([said_of(boxes)]), batches(shown))
    whole, part = (each["bbox"] for each in found[0])
    assert whole == pytest.approx([0, 0, width, height])
    assert part == pytest.approx([width / 2, height / 4, width / 2, height / 2])
    assert "segmentation" not in found[0][0]
    given = torch.tensor(boxes)
    torch.testing.assert_close(in_pixels_of(shown, (height, width), in_pixels_of((height, width), shown, given)), given)


@pytest.mark.parametrize("scale", [1, 2])
def test_masks_return_to_the_size_of_the_file_as_runs(found, scale):
    shown, size = (32, 24), (32 * scale, 24 * scale)
    masks = torch.full((2, 1, *shown), 0.3)
    masks[0, :, 8:16, 6:12] = 0.9
    masks[1, :, 0:3, 20:24] = 0.8
    said = said_of([[6.0, 8, 12, 16], [20, 0, 24, 3]], masks=masks)
    Detection(Objects([image_of(size)], NAMES, IDS), masks=True).evaluate(Says([said]), batches(shown))
    assert [each["bbox"] for each in found[0]] == [
        [6 * scale, 8 * scale, 6 * scale, 8 * scale],
        [20 * scale, 0, 4 * scale, 3 * scale],
    ]
    decoded = numpy.stack([runs.decode(each["segmentation"]) for each in found[0]])
    expected = (masks[:, 0] > 0.5).repeat_interleave(scale, 1).repeat_interleave(scale, 2)
    assert numpy.array_equal(decoded, expected.numpy())
    assert torch.equal(masks_at(size, masks), expected)


def test_a_mask_counts_by_its_own_area_and_not_by_its_boxs():
    raw = raw_of([], 1)
    box, small = [0.0, 0, 100, 100], numpy.zeros(SIZE, dtype=numpy.uint8)
    small[:20, :20] = 1
    thing = {"image_id": 5, "category_id": 3, "iscrowd": 0}
    raw["annotations"] = [{**thing, "id": 1, "bbox": [100, 100, 20, 20], "area": 400.0, "segmentation": counts(small)}]
    raw["annotations"][0]["segmentation"] = [[100, 100, 120, 100, 120, 120, 100, 120]]
    wrong = {"image_id": 5, "category_id": 3, "bbox": box, "score": 0.9, "mask": small}
    right = numpy.zeros(SIZE, dtype=numpy.uint8)
    right[100:120, 100:120] = 1
    results = [wrong, {**wrong, "bbox": [100, 100, 20, 20], "score": 0.8, "mask": right}]
    metrics = Detection(objects_of(raw), masks=True).evaluate(Says(as_said(raw, results)), batches(SIZE))
    assert metrics["mask_ap_small"] == pytest.approx(0.5), "the wrong one is small, too, whatever its box"
    assert metrics["box_ap_small"] == pytest.approx(1.0)


def test_objects_are_written_as_they_were_read():
    raw = random_truth(numpy.random.default_rng(3))
    written = as_coco(objects_of(raw))
    assert written["images"] == raw["images"]
    assert written["categories"] == raw["categories"]
    by_image = sorted(raw["annotations"], key=lambda each: each["image_id"])
    assert [{**each, "id": 0} for each in written["annotations"]] == [{**each, "id": 0} for each in by_image]
    assert len({each["id"] for each in written["annotations"]}) == len(by_image)
    assert 0 not in {each["id"] for each in written["annotations"]}, "which pycocotools takes for no match"


def test_each_class_has_its_own_precision_whatever_the_order_of_the_ids():
    box, names = [10.0, 20.0, 50.0, 40.0], ["kite", "cat", "dog"]
    thing = {"image_id": 5, "category_id": 90, "bbox": box, "area": 2000.0, "iscrowd": 0, "segmentation": triangle(box)}
    (image,) = objects_of(raw_of([thing], 1)).images
    kite = replace(image, labels=torch.tensor([0]))
    found = [{"image_id": 5, "category_id": 90, "bbox": box, "score": 0.9}]
    assert precision(Objects([kite], names, [90, 3, 7]), found, "bbox")[1] == [pytest.approx(1), None, None]


def test_nothing_is_measured_where_nothing_is_true():
    assert precision(Objects([image_of((20, 30))], NAMES, IDS), [], "bbox")[0] == [-1] * 6


@pytest.fixture
def batch():
    """Two images of several sizes; the second has no object."""
    return {
        "image": [torch.full((3, 50, 130), 51, dtype=torch.uint8), torch.full((3, 70, 40), 255, dtype=torch.uint8)],
        "boxes": [torch.tensor([[16.0, 24, 80, 48], [0, 0, 130, 50]]), torch.zeros(0, 4)],
        "labels": [torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64)],
        "masks": [torch.ones(2, 50, 130, dtype=torch.uint8), torch.zeros(0, 70, 40, dtype=torch.uint8)],
    }


def test_a_detector_gets_images_from_zero_to_one_and_labels_after_the_background(batch):
    none = Objects([], NAMES, IDS)
    images, targets = Detection(none).inputs(batch)
    assert [image.shape for image in images] == [(3, 50, 130), (3, 70, 40)]
    torch.testing.assert_close(images[0][:, 0, 0], torch.full((3,), 0.2))
    assert images[1].unique().tolist() == [1.0]
    assert [target["labels"].tolist() for target in targets] == [[1, 3], []]
    assert torch.equal(targets[0]["boxes"], batch["boxes"][0])
    assert all(target.keys() == {"boxes", "labels"} for target in targets)
    _, targets = Detection(none, masks=True).inputs(batch)
    assert [target["masks"] for target in targets] == batch["masks"]
    (alone,) = Detection(none).teacher_inputs(batch)
    assert all(torch.equal(here, there) for here, there in zip(alone, images, strict=True))


def test_the_truth_is_boxes_as_fractions_of_the_padded_batch(batch):
    boxes, none = Detection(Objects([], NAMES, IDS)).truth(batch)
    torch.testing.assert_close(boxes, torch.tensor([[0.1, 0.25, 0.5, 0.5], [0, 0, 130 / 160, 50 / 96]]))
    assert none.shape == (0, 4)


def test_the_loss_is_the_sum_of_the_detectors_own():
    losses = {"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor(2.0, requires_grad=True)}
    loss = Detection(Objects([], NAMES, IDS)).loss(losses, {})
    loss.backward()
    assert loss == 3.5
    assert [value.grad for value in losses.values()] == [1, 1]


@pytest.mark.parametrize("metric", ["box_ap", "mask_ap"])
def test_a_worthless_teacher_is_refused(metric):
    task = Detection(Objects([], NAMES, IDS), masks=metric == "mask_ap")
    assert task.metric == metric
    task.check_teacher({"box_ap": 0.5, "mask_ap": 0.5, metric: 0.01})
    with pytest.raises(
        ValueError, match=rf"the teacher's {metric} is 0\.0099: check its weights, .*--no-teacher-check"
    ):
        task.check_teacher({"box_ap": 0.5, "mask_ap": 0.5, metric: 0.0099})


def test_a_teacher_is_measured_as_a_student_is():
    rng = numpy.random.default_rng(0)
    raw = random_truth(rng)
    model = Says(as_said(raw, random_results(rng, raw)))
    task, shown = Detection(objects_of(raw)), [SIZE] * len(raw["images"])
    assert task.evaluate_teacher(model, batches(*shown)) == task.evaluate(model, batches(*shown))
