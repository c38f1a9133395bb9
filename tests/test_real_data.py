import tarfile

import pytest

from limbeck.cli import main
from limbeck.models.run_folder import read_card
from limbeck.tasks.classification.load import load_images
from tests.places import ROOT, SHARED_DATA

ARCHIVE = SHARED_DATA / "cifar10.tar.xz"
NETS = ROOT / "tests" / "nets.py"

pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(
        not ARCHIVE.is_file(), reason=f"no {ARCHIVE.name} in ../shared/data: bring your own to run this"
    ),
]


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """Every hundredth file of CIFAR-10 as an image folder."""
    folder = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(ARCHIVE) as archive:
        files = (member for member in archive if member.isfile())
        for number, member in enumerate(files):
            if number % 100 == 0:
                archive.extract(member, folder, filter="data")
    return folder / "cifar10"


def test_photographs_are_read_from_a_folder(cifar10):
    train, val = load_images(str(cifar10))
    assert (len(train), len(val)) == (500, 100)
    assert train.classes[:3] == ["airplane", "automobile", "bird"]
    assert all(train.read(index).shape == (3, 32, 32) for index in range(0, 500, 50))
    assert train.read(0).float().std() > 10


def test_a_classifier_is_distilled_on_photographs_by_one_command(cifar10, tmp_path):
    options = ["--data", str(cifar10), "--augment", "small", "--batch-size", "50", "--epochs", "2", "--workers", "1"]
    teacher, student = str(tmp_path / "teacher"), tmp_path / "student"
    main(["train", "classification", *options, "--model", f"{NETS}:big", "--size", "32", "--out", teacher])
    student_options = ["--student", f"{NETS}:small", "--size", "16", "--teacher", teacher, "--no-teacher-check"]
    main(["distill", "classification", *options, *student_options, "--out", str(student)])
    card = read_card(student / "student.safetensors")
    assert card["size"] == 16
    assert card["metrics"]["top1"] > 0
