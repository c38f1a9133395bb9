import pytest
import torch

from limbeck.tasks.classification.dataset import UNLABELLED, Images
from limbeck.tasks.classification.mixing import MixedImages, Mixing
from limbeck.tasks.classification.transforms import TrainImages


def images_of_one_colour(labels):
    """Image i is of the value 20 i everywhere."""
    values = torch.arange(len(labels), dtype=torch.uint8) * 20
    images = values.view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()
    return TrainImages(Images(images, labels, ["a", "b", "c"]), lambda image: image, seed=3)


def mixed(labels=(0, 1, 2, 0), **mixing):
    return MixedImages(images_of_one_colour(list(labels)), Mixing(**mixing), classes=3)


def test_mixup_blends_pixels_as_it_blends_classes():
    data = mixed(labels=(0, 1), mixup=1.0)
    blended = [data[epoch, 1] for epoch in range(20)]
    others = [sample for sample in blended if sample["target"][0] > 0]
    assert 3 < len(others) < 17  # an image may be mixed with itself
    for sample in others:
        assert sample["image"].unique().tolist() == [pytest.approx(20 * sample["target"][1].item(), abs=0.51)]
        assert sample["target"].sum() == pytest.approx(1)
        assert sample["label"] == 1


def test_cutmix_pastes_as_much_of_the_other_image_as_its_class_has():
    data = mixed(labels=(0, 1), cutmix=1.0)
    cut = [data[epoch, 1] for epoch in range(20)]
    assert any(0 < sample["target"][0] < 1 for sample in cut)
    for sample in cut:
        own = (sample["image"] == 20).float().mean()
        assert own == pytest.approx(sample["target"][1].item())


def test_both_are_taken_where_both_are_wanted():
    data = mixed(labels=(0, 1), mixup=1.0, cutmix=1.0)
    colours = [len(data[epoch, 1]["image"].unique()) for epoch in range(40)]
    blended = [data[epoch, 1]["image"].unique().tolist() not in ([20], [0]) for epoch in range(40)]
    assert max(colours) == 2
    assert any(count == 1 and between for count, between in zip(colours, blended, strict=True))


def test_the_same_epoch_and_index_are_mixed_alike_and_another_epoch_otherwise():
    data = mixed(mixup=0.4)
    first, again, later = data[0, 1], data[0, 1], data[1, 1]
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["target"], again["target"])
    assert not torch.equal(first["target"], later["target"])


def test_an_image_without_a_label_stays_as_it_is_and_is_mixed_into_none():
    data = mixed(labels=(0, UNLABELLED, 2), mixup=1.0)
    alone = data[0, 1]
    assert alone["image"].unique().tolist() == [20]
    assert alone["target"].tolist() == [0, 0, 0]
    assert {data[epoch, 0]["target"][1].item() for epoch in range(20)} == {0.0}
    assert data.labelled == [0, 2]


@pytest.mark.parametrize("wrong", [{"mixup": -0.1}, {"cutmix": float("nan")}])
def test_a_share_below_zero_is_refused(wrong):
    with pytest.raises(ValueError, match="0 or more"):
        Mixing(**wrong)
