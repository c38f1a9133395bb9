import json

import pytest
from PIL import Image

from limbeck.cli import main
from tests.places import ROOT
from tests.runs import mistake

SHORT = (
    "--model",
    f"{ROOT}/tests/nets.py:small",
    "--size",
    "8",
    "--batch-size",
    "4",
    "--workers",
    "0",
    "--epochs",
    "1",
)


@pytest.fixture
def data(tmp_path):
    """A folder with all three parts, of 8, 4 and 6 images, and one with 2."""
    for part, count in (("all/train", 4), ("all/valid", 2), ("all/test", 3), ("other", 1)):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (200 * label, number, 0)).save(folder / f"{number}.png")
    return tmp_path


def test_a_run_says_its_data_and_is_evaluated_on_what_it_was_measured_on(data, capsys):
    run = str(data / "run")
    images = ["--data", str(data / "all")]
    main(["train", "classification", *images, "--val-data", str(data / "other"), *SHORT, "--out", run])
    shown = " ".join(capsys.readouterr().out.split())
    assert "classes: 2 (cat, dog)" in shown
    assert "training: 8 images, in the class folders of" in shown
    assert "validation: 2 images, in the class folders of" in shown
    for options, count in (([], 2), (["--split", "test"], 6), (images, 4)):
        main(["evaluate", run, *options])
        assert f": {count} " in " ".join(capsys.readouterr().out.split())


def test_the_first_image_does_not_decide_at_which_size_all_are_seen(data, capsys):
    Image.new("RGB", (1, 1)).save(data / "all" / "train" / "cat" / "!.png")
    main(["train", "classification", "--data", str(data / "all"), *SHORT, "--dry-run", "--out", str(data / "run")])
    assert "9 training images, augmented (small) at 8 px" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--size", "0"], "size is 0; it must be 1 or more"),
        (["--max-hours", "nan"], "max_hours is nan; it must be finite and above 0"),
        (["--keep-every", "0"], "keep_every is 0; it must be 1 or more"),
    ],
)
def test_a_number_out_of_its_range_is_refused_before_the_data_are_read(data, capsys, option, message):
    words = ["--data", str(data / "nowhere"), "--model", f"{ROOT}/tests/nets.py:small", "--out", str(data / "run")]
    assert message in mistake(["train", "classification", *words, *option], capsys)


def test_a_run_is_resumed_on_the_same_data_in_another_place(data, capsys):
    run = str(data / "run")
    main(["train", "classification", "--data", str(data / "all"), *SHORT, "--max-steps", "1", "--out", run])
    (data / "all").rename(data / "moved")
    resume = ["train", run, "--resume", "--max-steps", "2", "--data"]
    main([*resume, str(data / "moved")])
    capsys.readouterr()
    main(["evaluate", run, "--json"])
    assert json.loads(capsys.readouterr().out)["data"] == str(data / "moved")


@pytest.mark.parametrize(("part", "named"), [("train", "training data"), ("valid", "validation data")])
def test_a_run_is_not_resumed_on_other_data(data, capsys, part, named):
    run = str(data / "run")
    main(["train", "classification", "--data", str(data / "all"), *SHORT, "--max-steps", "1", "--out", run])
    (data / "all" / part / "cat" / "0.png").rename(data / "all" / part / "dog" / "9.png")
    assert f"was started with other {named} (" in mistake(["train", run, "--resume", "--max-steps", "2"], capsys)


def test_bad_data_end_a_run_in_one_line_or_are_left_out(data, capsys):
    bad = data / "all" / "train" / "cat" / "0.png"
    bad.write_bytes(bad.read_bytes()[:-30])
    command = ["train", "classification", "--data", str(data / "all"), *SHORT, "--out", str(data / "run")]
    assert "cat/0.png cannot be read as an image" in mistake(command, capsys)
    main([*command, "--on-bad-data", "skip", "--split", "test"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out 1 unreadable images" in shown
    assert "training: 7 images" in shown
    assert "validation: 6 images" in shown
