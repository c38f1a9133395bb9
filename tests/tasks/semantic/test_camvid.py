import zipfile

import pytest

from limbeck.tasks.semantic.classes import IGNORED
from limbeck.tasks.semantic.load import load_masks
from limbeck.tasks.semantic.transforms import TrainMasks, augmentation
from tests.places import SHARED_DATA

ARCHIVE = SHARED_DATA / "camvid.zip"
VOID = 11

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not ARCHIVE.is_file(), reason=f"no {ARCHIVE.name} in ../shared/data: bring your own to run this"
    ),
]


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    """CamVid without its test images."""
    folder = tmp_path_factory.mktemp("camvid")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if not name.startswith("camvid/test/")])
    return folder / "camvid"


def test_road_scenes_and_their_masks_are_read_from_a_folder(camvid):
    train, val = load_masks(camvid, ignore_index=VOID)
    assert (len(train), len(val)) == (367, 101)
    assert len(train.classes) == 11
    assert train.classes == val.classes == (camvid / "classes.txt").read_text().split("\n")[:11]
    assert train.sizes == val.sizes == {(360, 480)}
    image, mask = train.read(0)
    assert image.shape == (3, 360, 480)
    assert image.float().std() > 10
    assert mask.shape == (1, 360, 480)
    seen = {value for index in range(0, 101, 10) for value in val.read_mask(index).unique().tolist()}
    assert seen == {*range(11), IGNORED}


def test_a_crop_of_a_road_scene_keeps_image_and_mask_together(camvid):
    train, _ = load_masks(camvid, ignore_index=VOID)
    sample = TrainMasks(train, augmentation((352, 480), 360), seed=0)[0, 5]
    assert sample["image"].shape[1:] == sample["mask"].shape == (352, 480)
    assert set(sample["mask"].unique().tolist()) <= {*range(11), IGNORED}


def test_void_pixels_without_ignore_index_are_refused_by_the_name_of_a_file(camvid):
    with pytest.raises(
        ValueError, match=r"masks/.*png holds the values \[11\], which stand for none of the 11 classes"
    ):
        load_masks(camvid)
