"""Commands as a person meets them: on a terminal, whose last screen is compared with what is to be seen there."""

import logging
import os
import re
import shutil
import sys
import threading
import time

import pytest
from PIL import Image

from limbeck.cli import main
from limbeck.commands import demo, report
from limbeck.models import cost
from limbeck.training.display import Display
from tests.terminal import CLEAR, Terminal

SMALL = (
    "--data",
    "digits",
    "--images",
    "128",
    "--batch-size",
    "32",
    "--size",
    "8",
    "--augment",
    "none",
    "--workers",
    "0",
)
WIDTHS = (80, 160)
SETTINGS = {
    "80 columns": (80, {}),
    "160 columns": (160, {}),
    "TERM=dumb": (80, {"TERM": "dumb"}),
    "COLUMNS=40": (80, {"COLUMNS": "40"}),
}


def shows(screen, *lines):
    """Whether a screen has these lines, maybe folded, in order; # stands for a number, ... for the rest of a line."""
    escaped = "\n".join(re.escape(line).replace("\\#", r"[\d.,e+-]+").replace(r"\.\.\.", ".*") for line in lines)
    pattern = escaped.replace("\\ ", r"[ \n]")
    return re.search(rf"(^|\n){pattern}($|\n)", screen) is not None


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    run = tmp_path_factory.mktemp("teacher") / "run"
    terminal = Terminal(80)
    terminal.limbeck("train", "classification", *SMALL, "--model", "tests/nets.py:big", "--epochs", "2", "--out", run)
    return run, terminal


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    run = tmp_path_factory.mktemp("student") / "run"
    models = ("--teacher", teacher[0], "--no-teacher-check", "--student", "tests/nets.py:small")
    terminal = Terminal(80)
    terminal.limbeck("distill", "classification", *SMALL, *models, "--epochs", "8", "--out", run)
    return run, terminal


def test_a_training_ends_with_its_metrics_and_where_the_student_is(teacher):
    run, terminal = teacher
    assert terminal.status == 0, terminal.last
    assert shows(
        terminal.last,
        "epoch 1: top1 # top5 # loss # (best top1 #)",
        "epoch 2: top1 # top5 # loss # (best top1 #)",
        "best top1 #, last #",
    )
    assert str(run)[:60] in terminal.last
    assert "━" not in terminal.last  # the live line is gone


def test_a_distillation_says_what_follows_what_and_how_long_it_takes(student):
    _, terminal = student
    assert terminal.status == 0, terminal.last
    assert "ChannelTransform:" in terminal.last
    assert "follows" in terminal.last
    live = [screen.splitlines() for screen in terminal.screens if "━" in screen]
    assert any(re.search(r"epoch \d/8 +\S*━\S*.* \d+/32 0:\d\d left$", line) for lines in live for line in lines)
    assert any("loss" in line and "= task" in line and "img/s" in line for lines in live for line in lines)


def test_where_colour_is_forced_a_person_sees_the_run_too(tmp_path):
    options = ("--model", "tests/nets.py:small", "--epochs", "2", "--out", tmp_path / "run")
    terminal = Terminal(80, {"FORCE_COLOR": "1"}).limbeck("train", "classification", *SMALL, *options)
    assert terminal.status == 0, terminal.last
    assert "epoch 2: top1" in terminal.last


@pytest.mark.parametrize("columns", [40, *WIDTHS])
def test_the_five_losses_of_a_detector_leave_room_for_how_far_it_is(columns):
    terminal = Terminal(columns).run(show_five_losses)
    live = next(screen for screen in terminal.screens if "left" in screen and "loss" in screen)
    lines = live.splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"epoch 1/10 \S*[━╸╺]\S*\s?\S* 2/100 0:\d\d left", lines[0])
    assert lines[1].startswith("  loss 1.5 = task 1 + distillation 0.5"[: columns - 2])


def show_five_losses():
    with Display() as display:
        display.begin(100, 0)
        display.epoch(0, 10)
        for _ in range(2):
            display.loaded(8, 0.0)
            display.step()
        display.losses(0, 2, {"task": 1.0, **{f"ChannelTransform:backbone/{2**n}": 0.1 for n in range(3, 8)}})
        time.sleep(0.5)


def test_no_line_that_is_said_is_taken_off_the_screen():
    terminal = Terminal(80).run(show_forty_evaluations)
    assert terminal.status == 0
    assert terminal.last.splitlines() == [f"epoch {n + 1}: top1 0.5000 (best top1 0.5000)" for n in range(40)]
    assert b"validation" in terminal.raw


def show_forty_evaluations():
    with Display() as display:
        display.begin(40, 0)
        for epoch in range(40):
            display.epoch(epoch, 40)
            display.step()
            display.losses(epoch, epoch, {"task": 1.0})
            for _ in display.track(range(3), "validation", 3):
                time.sleep(0.01)
            display.metrics(epoch, {"top1": 0.5}, "top1", 0.5)
        # A second thread that draws takes lines away now and then only: too seldom for a test to see it by the screen.
        assert threading.active_count() == 1


def test_no_line_that_is_logged_is_taken_off_the_screen():
    terminal = Terminal(80).run(show_what_is_logged)
    assert terminal.status == 0
    lines = [f"{way} {n}" for n in range(4) for way in ("logged", "printed", "warned of")]
    assert terminal.last.splitlines() == [*lines, "logged at the end"]


def show_what_is_logged():
    handler = logging.StreamHandler()  # has standard error as it is now
    logger = logging.getLogger("users")
    logger.addHandler(handler)
    with Display() as display:
        display.begin(4, 0)
        for step in range(4):
            display.epoch(step, 4)
            logger.warning("logged %d", step)
            print("printed", step)
            sys.stderr.write(f"warned of {step}\n")
            display.losses(step, step, {"task": 1.0})
    logger.warning("logged at the end")


def test_a_line_that_is_said_ends_between_words():
    said = Terminal(40).run(say_a_long_line).last
    assert said == "160 training images, augmented (small)\nat 64 px, then brought to 224 px"


def say_a_long_line():
    with Display() as display:
        display.say("160 training images, augmented (small) at 64 px, then brought to 224 px")


@pytest.mark.timeout(900)
def test_the_demo_ends_with_its_table(tmp_path):
    terminal = Terminal(80).limbeck("demo", "--out", tmp_path / "demo")
    assert terminal.status == 0, terminal.last
    assert shows(terminal.last, "| alone | # # # | # |  |", "| distilled | # # # | # | # ± # |")
    assert any(re.search(r"distilled-0 epoch \d+/20 .* left", screen) for screen in terminal.screens)


END = ("epoch 2: top1 # top5 # loss # (best top1 #)", "best top1 #, last #")
DISTIL = ("--teacher", "teacher", "--no-teacher-check", "--student", "nets.py:small", "--epochs", "2")
COMPRESS = ("--data", "digits", "--augment", "none", "--images", "128", "--workers", "0", "--no-teacher-check")
COMMANDS = {  # with lines that follow each other on the last screen
    "train": (("classification", *SMALL, "--model", "nets.py:big", "--epochs", "2", "--out", "teacher"), END),
    "distill": (
        ("classification", *SMALL, *DISTIL, "--out", "student"),
        (*END, "student: student/student.safetensors"),
    ),
    "compress": (("classification", "teacher", *COMPRESS, "--out", "half"), ("student: half/student.safetensors",)),
    "evaluate": (("student", "teacher"), ("validation images of digits: 450",)),
    "predict": (("student", "images", "--out", "out"), ("1 images: out/predictions.json",)),
    "export": (
        ("student", "student.pt2"),
        (
            "top1 on 256 validation images: # by the file, # by torch",
            "student.pt2: # MiB, images (B, 3, 8, 8) float32, RGB in [0, 1]",
        ),
    ),
    "report": (("student", "teacher", "--out", "page.html"), ("report: page.html",)),
    "layers": (("nets.py:small", "--size", "8"), ("last feature map: 2",)),
    "methods": ((), ()),
    "cite": (("student",), ("@misc{limbeck,",)),
    "--help": ((), ("Each command explains its options: limbeck distill classification --help",)),
    "demo": (("--out", "demo"), ("| alone | # # | # |  |", "| distilled | # # | # | # ± # |")),
}


WHOLE = {  # on the last screen, whatever its width
    "compress": ("compressed", "5,466", "memory"),
    "evaluate": ("agreement",),
    "methods": ("arXiv 2312.06709", "ForegroundTransform", "65,792"),
    "layers": ("(1000,)",),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_command_ends_with_a_screen_that_can_be_read(setting, tmp_path):
    columns, environment = SETTINGS[setting]
    terminal = Terminal(columns, environment).run(show_every_command, tmp_path)
    assert terminal.status == 0, terminal.last
    for last, (command, (_, lines)) in zip(terminal.last_of_each()[1:], COMMANDS.items(), strict=True):
        assert not lines or shows(last, *lines), last
        assert not re.search(r"━ +\d+/\d+ |Traceback|profiler", last), last  # the live line is gone
        for words in WHOLE.get(command, ()):
            assert words in last, last
    counts = re.findall(r"━ +(\d+)/(\d+) ", "\n".join(terminal.screens))
    assert all(int(done) <= int(total) for done, total in counts)
    assert setting != "TERM=dumb" or b"\x1b" not in terminal.raw.replace(CLEAR.encode(), b"")


def show_every_command(folder):
    """One after the other, each on a screen of its own; what takes long and is not to be seen there has less to do."""
    (folder / "images").mkdir()
    Image.new("L", (8, 8), 90).save(folder / "images" / "0.png")
    shutil.copy("tests/nets.py", folder)
    os.chdir(folder)
    budget = demo.budget
    cost.SECONDS = 0
    report.write_report = lambda runs, out: out
    demo.SEEDS, demo.STEPS, demo.missing = range(2), 2, lambda: ["altair"]
    demo.budget = lambda epochs, batch_size=64, evaluate_every=10, seed=0: budget(1, batch_size, 1, seed)
    for command, (words, _) in COMMANDS.items():
        print(end=CLEAR, flush=True)
        main([command, *words])
        sys.stdout.flush()
