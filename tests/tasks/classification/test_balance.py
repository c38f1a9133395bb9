from collections import Counter
from itertools import chain

import pytest
import torch
from PIL import Image

from limbeck.cli import main
from limbeck.data.order import TrainOrder
from limbeck.tasks.classification.balance import Balance, balance_of, describe_balance
from limbeck.tasks.classification.dataset import UNLABELLED, Images
from limbeck.tasks.classification.transforms import TrainImages
from tests.places import ROOT
from tests.runs import equal, mistake, weights

LABELS = [0] * 40 + [1] * 17 + [3] * 3  # no image of class 2


def images(labels=LABELS):
    values = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    return Images(values, labels, ["a", "b", "c", "d"])


def noisy(image):
    return image.float() + torch.rand(image.shape)


def epoch_of(epoch, **share):
    """The samples of an epoch, or the share of a process."""
    data = TrainImages(images(), noisy, seed=0, balance=Balance(LABELS, seed=0))
    keys = chain.from_iterable(TrainOrder(len(data), 4, epoch=epoch, seed=0, **share))
    return [data[key] for key in keys]


def test_every_class_is_seen_equally_often_and_every_image_of_it():
    samples = epoch_of(0)
    assert Counter(int(sample["label"]) for sample in samples) == {0: 20, 1: 20, 3: 20}
    often = Counter(int(sample["index"]) for sample in samples)
    assert [often[index] for index in (57, 58, 59)] == pytest.approx([20 / 3] * 3, abs=1)
    assert {often[index] for index in range(40, 57)} == {1, 2}
    assert sum(often[index] for index in range(40)) == len(set(often) & set(range(40))) == 20  # none of them twice


def test_an_image_that_comes_again_is_augmented_otherwise():
    again = [sample["image"] for sample in epoch_of(0) if sample["index"] == 59]
    assert not any(torch.equal(again[0], other) for other in again[1:])


def test_other_images_of_a_large_class_are_seen_in_other_epochs_and_the_same_in_the_same():
    first, same, later = (sorted(int(sample["index"]) for sample in epoch_of(epoch)) for epoch in (0, 0, 1))
    assert first == same != later


def test_what_is_left_over_goes_to_another_class_each_epoch():
    balance = Balance([0, 0, 0, 1, 2], seed=0)
    short = [Counter(torch.tensor([0, 0, 0, 1, 2])[balance.images(epoch)].tolist()) for epoch in range(3)]
    assert [counts.most_common()[-1] for counts in short] == [(2, 1), (1, 1), (0, 1)]


def test_processes_and_a_resumed_run_see_what_one_unbroken_process_sees():
    indices = [int(sample["index"]) for sample in epoch_of(2)]
    assert [int(sample["index"]) for sample in epoch_of(2, start=7)] == indices[28:]
    shares = [[int(sample["index"]) for sample in epoch_of(2, rank=rank, world=2)] for rank in range(2)]
    assert sorted(chain(*shares)) == sorted(indices)
    assert shares[0][:4] + shares[1][:4] == [*indices[:2], *indices[4:6], *indices[2:4], *indices[6:8]]


@pytest.mark.parametrize(
    ("labels", "class_weights", "message"),
    [([0, 1, UNLABELLED], "none", "1 of 3 have none"), ([0, 1, 1], "balanced", "leave one of them out")],
)
def test_images_without_a_class_and_weighed_classes_are_refused(labels, class_weights, message):
    with pytest.raises(ValueError, match=message):
        balance_of(images(labels), class_weights, seed=0)


def test_the_start_says_how_often_images_are_seen():
    every, each = "balanced: every class about 20 times an epoch", "each image of a (40 images) 0.5 times"
    assert describe_balance(images()) == f"{every}, {each}, of d (3 images) 6.7 times"


def test_a_balanced_run_is_resumed_as_it_was(tmp_path, capsys):
    for part, label, count in [("train", "cat", 12), ("train", "dog", 3), ("val", "cat", 2), ("val", "dog", 2)]:
        (tmp_path / part / label).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (200, 20 * number, 0)).save(tmp_path / part / label / f"{number}.png")
    short = ["--model", f"{ROOT}/tests/nets.py:small", "--size", "8", "--batch-size", "4", "--workers", "0"]
    command = ["train", "classification", "--data", str(tmp_path), *short, "--balance", "--mixup", "0.2"]
    main([*command, "--epochs", "2", "--max-steps", "5", "--out", str(tmp_path / "whole")])
    assert "balanced: every class about 8 times" in " ".join(capsys.readouterr().out.split())
    main([*command, "--epochs", "2", "--max-steps", "5", "--out", str(tmp_path / "again")])
    assert equal(weights(tmp_path / "whole"), weights(tmp_path / "again"))
    changed = [*command, "--epochs", "2", "--max-steps", "5", "--out", str(tmp_path / "whole"), "--resume"]
    changed.remove("--balance")
    assert "other --balance" in mistake(changed, capsys)
