import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
from robustness_table import Outcome, Row, report


def row(cell, alone, distilled):
    return Row(cell, "KD", Outcome(0.9), [Outcome(each) for each in alone], distilled)


def test_the_figures_count_what_diverged_and_what_is_surely_better_or_worse():
    rows = [
        row("one", [0.50, 0.51, 0.52], [Outcome(0.60), Outcome(0.612), Outcome(0.618)]),  # surely better
        row("two", [0.50, 0.51, 0.52], [Outcome(0.49), Outcome(0.60), Outcome(0.49)]),  # better, not surely
        row("three", [0.50, 0.51, 0.52], [Outcome(0.40), Outcome(0.41), Outcome(0.42)]),  # surely worse
        row("four", [0.50, 0.51, 0.52], [Outcome(0.0, "step 3"), Outcome(0.51), Outcome(0.52)]),  # worse, not surely
    ]
    first, *lines = report(rows).splitlines()
    assert first.startswith("KD, 4 cells: 1 of 12 runs diverged (alone 0); better than alone in 2 cells (50%), beyond")
    assert "the interval in 1; worse beyond it in 1" in first
    assert first.endswith("better in 2 of the 4 cells whose teacher is better than alone")
    assert lines[-1] == "| four | KD | 90.0 | 50.0 51.0 52.0 | 0.0* 51.0 52.0 | -16.7 ± 71.7 |"


def test_one_seed_shows_nothing():
    assert row("one", [0.5], [Outcome(0.9)]).gain == (pytest.approx(40), float("inf"))
