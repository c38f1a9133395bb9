import pickle
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from limbeck.tasks.detection.dataset import Annotated, Objects
from limbeck.tasks.detection.load import load_objects
from limbeck.tasks.detection.transforms import ShortSide, TrainObjects, ValObjects, augmentation, collate, drawn
from tests.tasks.detection.test_dataset import unpacked

HEIGHT, WIDTH = 60, 90
BRIGHT = [[8, 12, 40, 30], [50, 20, 84, 56]]  # left, top, right, bottom of what is drawn; no flip maps one to another


def outline_of(box):
    left, top, right, bottom = box
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotated(folder, boxes=BRIGHT, crowd=(), size=(HEIGHT, WIDTH), number=0):
    """A black image with a bright rectangle for each box, in the colour channel of its label."""
    pixels = torch.zeros(*size, 3, dtype=torch.uint8)
    for label, (left, top, right, bottom) in enumerate(boxes):
        pixels[int(top) : int(bottom), int(left) : int(right), label] = 250
    path = folder / f"{number}.png"
    Image.fromarray(pixels.numpy()).save(path)
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Annotated(
        id=number,
        path=path,
        size=size,
        boxes=corners,
        labels=torch.arange(len(boxes)),
        crowd=torch.tensor([place in crowd for place in range(len(boxes))], dtype=torch.bool),
        areas=(corners[:, 2:] - corners[:, :2]).prod(1),
        outlines=[outline_of(box) for box in boxes],
    )


def objects_of(*images):
    return Objects(images, ["first", "second", "third"], [1, 2, 3])


@pytest.fixture
def objects(tmp_path):
    return objects_of(annotated(tmp_path), annotated(tmp_path, number=1))


def extent(where):
    """Left, top, right and bottom of the pixels (H, W) that are true."""
    rows, columns = where.any(1).nonzero(), where.any(0).nonzero()
    return torch.cat([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()


def test_boxes_and_masks_stay_in_step_with_the_image(objects):
    data = TrainObjects(objects, augmentation([40, 60, 75], 200), seed=0, masks=True)
    lefts, sides = set(), set()
    for epoch in range(30):
        sample = data[epoch, 0]
        image, boxes, labels, masks = (sample[name] for name in ("image", "boxes", "labels", "masks"))
        height, width = image.shape[1:]
        assert masks.shape == (2, height, width)
        for box, label, mask in zip(boxes, labels, masks, strict=True):
            torch.testing.assert_close(box, extent(image[label] > 125), rtol=0, atol=0.75)
            torch.testing.assert_close(box, extent(mask == 1), rtol=0, atol=1)
            assert ((image[label] > 125) == (mask == 1)).float().mean() > 0.97
            assert image[label][mask == 1].float().mean() > 225
        assert labels.tolist() == [0, 1]
        sides.add(min(height, width))
        lefts.add(bool(boxes[0, 0] < boxes[1, 0]))
    assert lefts == {True, False}
    assert sides == {40, 60, 75}


@pytest.mark.parametrize(("flip", "left"), [(0.0, 8), (1.0, WIDTH - 40)])
def test_the_probability_of_a_flip_is_followed(objects, flip, left):
    data = TrainObjects(objects, augmentation([HEIGHT], 200, flip), seed=0, masks=False)
    assert [float(data[epoch, 0]["boxes"][0, 0]) for epoch in range(5)] == [left] * 5


def test_the_longer_side_has_its_limit(objects):
    image = TrainObjects(objects, augmentation([HEIGHT], WIDTH // 2), seed=0, masks=False)[0, 0]["image"]
    assert image.shape == (3, HEIGHT // 2, WIDTH // 2)


def test_a_sample_is_of_plain_tensors_that_torchvision_takes(objects):
    sample = TrainObjects(objects, augmentation([40], 200), seed=0, masks=True)[0, 1]
    tensors = {name: sample[name] for name in ("image", "boxes", "labels", "masks")}
    assert {name: (type(value), value.dtype) for name, value in tensors.items()} == {
        "image": (torch.Tensor, torch.uint8),
        "boxes": (torch.Tensor, torch.float32),
        "labels": (torch.Tensor, torch.int64),
        "masks": (torch.Tensor, torch.uint8),
    }
    assert (sample["index"], sample["size"]) == (1, (HEIGHT, WIDTH))
    assert sample.keys() == {*tensors, "index", "size"}
    assert "masks" not in TrainObjects(objects, augmentation([40], 200), seed=0, masks=False)[0, 1]


def test_objects_that_become_smaller_than_a_pixel_are_dropped(tmp_path):
    boxes = [[8, 12, 40, 30], [50, 20, 51.5, 56], [10, 40, 40, 41.5]]
    objects = objects_of(annotated(tmp_path, boxes))
    assert TrainObjects(objects, augmentation([HEIGHT], 200), seed=0, masks=True)[0, 0]["labels"].tolist() == [0, 1, 2]
    half = TrainObjects(objects, augmentation([HEIGHT // 2], 200, flip=0.0), seed=0, masks=True)[0, 0]
    assert half["boxes"].tolist() == [[4, 6, 20, 15]]
    assert half["labels"].tolist() == [0]
    assert half["masks"].shape == (1, HEIGHT // 2, WIDTH // 2)
    assert extent(half["masks"][0] == 1).tolist() == [4, 6, 20, 15]


@pytest.mark.parametrize("size", [(47, 61), (61, 47), (59, 83), (33, 100)])
def test_a_box_as_big_as_its_image_is_never_dropped(tmp_path, size):
    """Not even where rounding makes it bigger."""
    objects = objects_of(annotated(tmp_path, [[0, 0, size[1], size[0]]], size=size))
    for side in range(20, 80):
        sample = TrainObjects(objects, augmentation([side], 90), seed=0, masks=False)[0, 0]
        height, width = sample["image"].shape[1:]
        assert len(sample["boxes"]) == 1
        assert (sample["boxes"] <= torch.tensor([width, height, width, height])).all()


def test_images_without_objects_give_empty_tensors(tmp_path):
    objects = objects_of(annotated(tmp_path, []))
    train = TrainObjects(objects, augmentation([30], 200, flip=1.0, colour=0.1), seed=0, masks=True)[0, 0]
    assert (train["boxes"].shape, train["labels"].shape, train["masks"].shape) == ((0, 4), (0,), (0, 30, 45))
    assert ValObjects(objects, 30, 200)[0]["boxes"].shape == (0, 4)


def test_crowds_are_left_out_of_training_and_kept_for_validation(tmp_path):
    objects = objects_of(annotated(tmp_path, crowd=[0]))
    train = TrainObjects(objects, augmentation([HEIGHT], 200, flip=0.0), seed=0, masks=True)[0, 0]
    assert (train["labels"].tolist(), train["boxes"].tolist()) == ([1], BRIGHT[1:])
    assert len(train["masks"]) == 1
    assert extent(train["masks"][0] == 1).tolist() == BRIGHT[1]
    val = ValObjects(objects, HEIGHT, 200)[0]
    assert (val["labels"].tolist(), val["boxes"].tolist()) == ([0, 1], BRIGHT)


def test_the_augmentation_depends_on_seed_epoch_and_index_alone(objects):
    def data(seed):
        return TrainObjects(objects, augmentation(range(40, 80), 200, colour=0.4), seed=seed, masks=True)

    torch.manual_seed(1)
    first = data(0)[0, 0]
    state = torch.get_rng_state()
    data(0)[3, 1]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = pickle.loads(pickle.dumps(data(0)))[0, 0]  # as a loader's worker has it
    assert all(torch.equal(first[name], again[name]) for name in ("image", "boxes", "labels", "masks"))
    for other in (data(0)[1, 0], data(0)[0, 1], data(1)[0, 0]):
        assert not torch.equal(first["image"], other["image"])
        assert not torch.equal(first["boxes"], other["boxes"])


def test_colour_changes_the_image_alone(objects):
    plain, coloured = (
        TrainObjects(objects, augmentation([40, 50], 200, colour=colour), seed=0, masks=True)[0, 0]
        for colour in (0.0, 0.5)
    )
    assert not torch.equal(plain["image"], coloured["image"])
    assert plain["image"].shape == coloured["image"].shape
    assert all(torch.equal(plain[name], coloured[name]) for name in ("boxes", "labels", "masks"))


@pytest.mark.parametrize(
    ("short_side", "long_side", "shape"),
    [(30, 200, (30, 45)), (40, 45, (30, 45)), (45, 45, (30, 45)), (80, 30, (20, 30)), (120, 400, (120, 180))],
)
def test_validation_brings_images_to_size_and_boxes_with_them(objects, short_side, long_side, shape):
    data = ValObjects(objects, short_side, long_side)
    assert len(data) == 2
    state = torch.get_rng_state()
    sample = data[1]
    assert torch.equal(torch.get_rng_state(), state)
    assert sample["image"].shape == (3, *shape)
    torch.testing.assert_close(sample["boxes"], torch.tensor(BRIGHT) * shape[0] / HEIGHT)
    assert sample.keys() == {"image", "boxes", "labels", "index", "size"}
    assert (sample["index"], sample["size"]) == (1, (HEIGHT, WIDTH))
    assert type(sample["image"]) is type(sample["boxes"]) is torch.Tensor


def test_size_leads_boxes_back_where_rounding_makes_the_axes_differ(tmp_path):
    objects = objects_of(annotated(tmp_path, size=(61, 97)))
    sample = ValObjects(objects, 20, 200)[0]
    height, width = sample["image"].shape[1:]
    back = torch.tensor([sample["size"][1] / width, sample["size"][0] / height]).repeat(2)
    assert back[0] != back[1]
    torch.testing.assert_close(sample["boxes"] * back, torch.tensor(BRIGHT).float())


def test_objects_are_kept_in_validation_however_small(tmp_path):
    objects = objects_of(annotated(tmp_path, [[8, 12, 9, 13]]))
    assert len(ValObjects(objects, 20, 200)[0]["boxes"]) == 1


def test_samples_are_collated_to_lists(tmp_path):
    objects = objects_of(annotated(tmp_path), annotated(tmp_path, [], size=(40, 50), number=1))
    data = ValObjects(objects, 30, 200)
    batch = collate([data[0], data[1]])
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 30, 45), (3, 30, 37)]
    assert [len(boxes) for boxes in batch["boxes"]] == [2, 0]
    assert (batch["index"], batch["size"]) == ([0, 1], [(HEIGHT, WIDTH), (40, 50)])


def ring():
    """A mask with a hole that touches an edge, so that its runs begin with one of no pixels."""
    where = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    where[0:30, 0:20] = 1
    where[10:20, 5:15] = 0
    return where


def run_lengths(where):
    """Lengths of the runs of 0 and 1, column by column, as COCO has them."""
    counts, value, length = [], 0, 0
    for each in where.T.flatten().tolist():
        if each != value:
            counts.append(length)
            value, length = each, 0
        length += 1
    return [*counts, length]


POLYGONS = [[10.5, 10, 40, 12, 30, 40], [60, 5, 80, 5, 80, 20.5, 70, 30, 60, 20], [20, 20, 50, 20, 50, 30, 20, 30]]


def drawn_by(library, outline):
    """The mask (H, W) that the other library draws."""
    if isinstance(outline, list):
        outline = library.merge(library.frPyObjects(outline, HEIGHT, WIDTH))
    elif isinstance(outline["counts"], list):
        outline = library.frPyObjects(outline, HEIGHT, WIDTH)
    return torch.from_numpy(library.decode(outline).copy())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools, by numpy
def test_polygons_and_run_lengths_are_drawn_as_pycocotools_draws_them(tmp_path):
    image, size = annotated(tmp_path), [HEIGHT, WIDTH]
    pycocotools = pytest.importorskip("pycocotools.mask")
    compressed = pycocotools.encode(ring().numpy().copy(order="F"))["counts"].decode()
    assert run_lengths(ring())[0] == 0
    outlines = [
        POLYGONS[:1],
        POLYGONS,
        [[-20, -20, 30, -20, 30, 30, -20, 30]],
        {"size": size, "counts": run_lengths(ring())},
        {"size": size, "counts": compressed},
    ]
    masks = drawn(replace(image, outlines=outlines), torch.ones(5, dtype=torch.bool))
    assert (masks.shape, masks.dtype) == ((5, HEIGHT, WIDTH), torch.uint8)
    for found, outline in zip(masks, outlines, strict=True):
        assert torch.equal(found, drawn_by(pycocotools, outline))
    assert masks[1].sum() > masks[0].sum() > 0
    assert masks[1].max() == 1
    assert torch.equal(masks[3], ring())
    assert torch.equal(masks[4], ring())


def test_only_the_objects_that_are_kept_are_drawn(tmp_path):
    masks = drawn(annotated(tmp_path), torch.tensor([False, True]))
    assert len(masks) == 1
    assert extent(masks[0] == 1).tolist() == BRIGHT[1]


@pytest.mark.shared_data
def test_masks_of_photographs_have_the_area_and_the_box_that_the_json_says(tmp_path):
    train, _ = load_objects(unpacked("coco128.zip", tmp_path), outlines=True)
    areas, boxes = [], []
    for image in train.images:
        masks = drawn(image, torch.ones_like(image.crowd))
        for mask, area, box in zip(masks, image.areas, image.boxes, strict=True):
            areas.append(abs(float(mask.sum() / area) - 1))
            boxes.append(float((extent(mask == 1) - box).abs().max()) if mask.any() else torch.inf)
    assert torch.tensor(areas).median() < 0.01
    assert torch.tensor(areas).lt(0.05).float().mean() > 0.9
    assert torch.tensor(boxes).le(2).float().mean() > 0.95


@pytest.mark.shared_data
def test_a_photograph_keeps_its_masks_in_its_boxes(tmp_path):
    train, _ = load_objects(unpacked("coco128.zip", tmp_path), outlines=True)
    data = TrainObjects(train, augmentation([192, 224, 256], 400, colour=0.2), seed=0, masks=True)
    inside = []
    for index in range(0, 100, 10):
        sample = data[0, index]
        for mask, box in zip(sample["masks"], sample["boxes"], strict=True):
            if mask.any():
                inside.append(float((extent(mask == 1) - box).abs().max()))
    assert len(inside) > 30
    assert torch.tensor(inside).le(2).float().mean() > 0.95


@pytest.mark.parametrize("size", [(2, 3000), (3000, 2)])
def test_an_image_of_a_thousand_times_its_width_keeps_a_pixel_across(tmp_path, size):
    objects = objects_of(annotated(tmp_path, [[0, 0, 1, 1]], size=size))
    expected = tuple(200 if side > 2 else 1 for side in size)
    seen = TrainObjects(objects, augmentation([100], 200), seed=0, masks=False)[0, 0]["image"]
    assert tuple(seen.shape[1:]) == expected
    assert tuple(ValObjects(objects, 100, 200)[0]["image"].shape[1:]) == expected
    assert tuple(ShortSide(100, 200)(objects.read(0)).shape[1:]) == expected


@pytest.mark.parametrize("sides", [(100, 167), (75, 75), (40, 400), (120, 121)])
def test_images_are_brought_to_the_sides_that_torchvision_gives_them(sides):
    short, long = sides
    plain = v2.Resize(short if short < long else None, max_size=long, antialias=True)
    for height in range(31, 200, 13):
        for width in range(31, 200, 17):
            image = torch.randint(256, (3, height, width), dtype=torch.uint8)
            assert torch.equal(ShortSide(short, long)(image), plain(image))
