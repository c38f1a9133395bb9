import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from limbeck.tasks.semantic.classes import IGNORED, Labels, meaning_of
from limbeck.tasks.semantic.dataset import Masks
from limbeck.tasks.semantic.transforms import TrainMasks, ValMasks, augmentation

HEIGHT, WIDTH = 40, 60


def grey_of(mask):
    """The grey that stands for each class in the images here; none is black, as padding is."""
    return mask * 60 + 40


@pytest.fixture
def masks(tmp_path):
    """The same scene twice, of four classes that no flip maps to themselves."""
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    mask[:, 20:] = 1
    mask[:, 45:] = 2
    mask[25:] = 3
    paths = [[tmp_path / f"{kind}{number}.png" for number in range(2)] for kind in ("image", "mask")]
    for image_path, mask_path in zip(*paths, strict=True):
        Image.fromarray(grey_of(mask).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()).save(image_path)
        Image.fromarray(mask.numpy()).save(mask_path)
    classes = ["left", "middle", "right", "below"]
    return Masks(*paths, Labels(classes, meaning_of(dict(enumerate(classes)), None)))


def flat(mask):
    """Where all pixels around one are of its class, so that interpolation of the image mixes nothing."""
    values = F.pad(mask, (3, 3, 3, 3), value=IGNORED)[None, None].float()
    highest, lowest = (sign * F.max_pool2d(sign * values, 7, 1)[0, 0] for sign in (1, -1))
    return (highest == lowest) & (mask != IGNORED)


def test_image_and_mask_stay_in_step(masks):
    data = TrainMasks(masks, augmentation((32, 48), HEIGHT, colour=0), seed=0)
    flipped, checked = [], 0
    for epoch in range(40):
        image, mask = data[epoch, 0].values()
        where = flat(mask)
        checked += int(where.sum())
        assert (image[:, where].long() - grey_of(mask[where])).abs().max() <= 1
        columns = [(mask == each).nonzero()[:, 1].float().mean() for each in (0, 1)]
        if not any(column.isnan() for column in columns):
            flipped.append(bool(columns[0] > columns[1]))
    assert checked > 40 * 32 * 48 / 4
    assert set(flipped) == {True, False}


def test_what_is_outside_the_image_is_black_and_of_no_class(masks):
    data = TrainMasks(masks, augmentation((48, 64), HEIGHT, scale=(0.5, 1), colour=0), seed=0)
    for epoch in range(10):
        image, mask = data[epoch, 0].values()
        assert torch.equal(mask == IGNORED, (image == 0).all(0))
        assert 0 < (mask == IGNORED).float().mean() < 1
        assert mask.unique().tolist() == [0, 1, 2, 3, IGNORED]


def test_every_size_of_the_shorter_side_is_drawn_and_none_beyond(masks):
    data = TrainMasks(masks, augmentation((8, 8), 2, scale=(0.5, 2)), seed=0)
    sides = {int((data[epoch, 0]["mask"] != IGNORED).any(1).sum()) for epoch in range(60)}
    assert sides == {1, 2, 3, 4}


def test_the_scale_is_relative_to_the_shorter_side(masks):
    sample = TrainMasks(masks, augmentation((64, 64), HEIGHT // 4, scale=(2, 2)), seed=0)[0, 0]
    labelled = sample["mask"] != IGNORED
    assert (int(labelled.any(1).sum()), int(labelled.any(0).sum())) == (HEIGHT // 2, WIDTH // 2)


@pytest.mark.parametrize("crop", [(32, 48), (48, 32), (100, 20)])
def test_a_sample_is_of_the_size_of_the_crop(masks, crop):
    sample = TrainMasks(masks, augmentation(crop, HEIGHT), seed=0)[0, 0]
    assert sample["image"].shape == (3, *crop)
    assert sample["mask"].shape == crop
    assert (sample["image"].dtype, sample["mask"].dtype) == (torch.uint8, torch.int64)
    assert type(sample["image"]) is type(sample["mask"]) is torch.Tensor


def test_the_augmentation_depends_on_seed_epoch_and_index_alone(masks):
    data = TrainMasks(masks, augmentation((32, 48), HEIGHT), seed=0)
    torch.manual_seed(1)
    first = data[0, 0]
    torch.manual_seed(2)
    data[3, 1]
    again = data[0, 0]
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["mask"], again["mask"])
    other_seed = TrainMasks(masks, augmentation((32, 48), HEIGHT), seed=1)
    for other in (data[1, 0], data[0, 1], other_seed[0, 0]):
        assert not torch.equal(first["image"], other["image"])
        assert not torch.equal(first["mask"], other["mask"])


def test_colour_changes_the_image_alone(masks):
    plain, coloured = (
        TrainMasks(masks, augmentation((32, 48), HEIGHT, colour=colour), seed=0)[0, 0] for colour in (0, 0.5)
    )
    assert torch.equal(plain["mask"], coloured["mask"])
    assert not torch.equal(plain["image"], coloured["image"])


def test_validation_resizes_images_and_leaves_masks_as_they_are(masks):
    data = ValMasks(masks, HEIGHT // 2)
    assert len(data) == 2
    sample = data[1]
    assert sample["image"].shape == (3, HEIGHT // 2, WIDTH // 2)
    assert torch.equal(sample["mask"], masks.read_mask(1)[0].long())
    assert sample["index"] == 1
    small = sample["mask"][::2, ::2]
    where = flat(small)
    assert torch.equal(sample["image"][:, where].long(), grey_of(small[where]).expand(3, -1))
    assert where.float().mean() > 0.1
