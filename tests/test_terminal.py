"""Commands as a person meets them: on a terminal, whose last screen is compared with what is to be seen there."""

import re
import time

import pytest

from limbeck.training.display import Display
from tests.terminal import Terminal

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


def shows(screen, *lines):
    """Whether a screen has these lines, in order; # stands for a number, ... for the rest of a line."""
    pattern = r"\n".join(re.escape(line).replace("\\#", r"[\d.,e+-]+").replace(r"\.\.\.", ".*") for line in lines)
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


@pytest.mark.parametrize("columns", WIDTHS)
def test_evaluate_shows_a_row_for_each_model(student, teacher, columns):
    terminal = Terminal(columns).limbeck("evaluate", student[0], teacher[0])
    assert terminal.status == 0, terminal.last
    assert terminal.last.count("│") > 6
    assert "validation images of digits: 450" in terminal.last


@pytest.mark.parametrize("columns", WIDTHS)
@pytest.mark.parametrize("command", [("layers", "tests/nets.py:small", "--size", "8"), ("methods",), ("--help",)])
def test_what_lists_things_fits_the_screen(command, columns):
    terminal = Terminal(columns).limbeck(*command)
    assert terminal.status == 0, terminal.last
    assert "Traceback" not in terminal.last


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"COLUMNS": "40"}, {"FORCE_COLOR": "1"}], ids=str)
def test_an_odd_terminal_sees_the_run_too(environment, tmp_path):
    options = ("--model", "tests/nets.py:small", "--epochs", "2", "--out", tmp_path / "run")
    terminal = Terminal(80, environment).limbeck("train", "classification", *SMALL, *options)
    assert terminal.status == 0, terminal.last
    assert "epoch 2: top1" in terminal.last
    assert "Traceback" not in terminal.last


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


@pytest.mark.timeout(900)
def test_the_demo_ends_with_its_table(tmp_path):
    terminal = Terminal(80).limbeck("demo", "--out", tmp_path / "demo")
    assert terminal.status == 0, terminal.last
    assert shows(terminal.last, "| alone | # # # | # |  |", "| distilled | # # # | # | # ± # |")
    assert any(re.search(r"distilled-0 epoch \d+/20 .* left", screen) for screen in terminal.screens)
