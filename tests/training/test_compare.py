from statistics import stdev

import pytest
from torch import nn

from limbeck.training.compare import Arm, compare, difference, table
from limbeck.training.record import save_student


def test_a_table_tells_the_paired_difference_to_the_first_with_its_interval():
    rows = table([Arm("alone", [0.5, 0.52, 0.51]), Arm("distilled", [0.53, 0.54, 0.55])]).splitlines()
    assert rows[2] == "| alone | 50.00 52.00 51.00 | 51.00 |  |"
    assert rows[3] == "| distilled | 53.00 54.00 55.00 | 54.00 | +3.00 ± 2.48 |"


def test_one_seed_has_no_interval():
    assert table([Arm("alone", [0.5]), Arm("distilled", [0.53])]).endswith(
        "| distilled | 53.00 | 53.00 | +3.00, of one seed |"
    )


def test_pairs_are_by_seed():
    assert difference([1.0, 2.0, 9.0], [0.0, 1.0, 8.0]) == (1.0, 0.0)
    with pytest.raises(ValueError, match="zip"):
        difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize(("pairs", "expected"), [(2, 12.7062), (3, 4.3027), (10, 2.2622), (31, 2.0423), (121, 1.9799)])
def test_the_interval_is_as_wide_as_a_table_of_students_t_says(pairs, expected):
    values = [float(index % 2) for index in range(pairs)]
    assert difference(values, [0.0] * pairs)[1] == pytest.approx(expected * stdev(values) / pairs**0.5, rel=1e-4)


def test_a_run_that_is_finished_is_taken_as_it_is(tmp_path, capsys):
    for seed, value in ((0, 0.25), (1, 0.75)):
        (tmp_path / f"arm-{seed}").mkdir()
        card = {"metrics": {"top1": value}}
        save_student(nn.Linear(1, 1), tmp_path / f"arm-{seed}" / "student-last.safetensors", card)

    def make(seed):
        raise AssertionError("nothing is to be trained")

    assert compare({"arm": make}, [0, 1], tmp_path) == [Arm("arm", [0.25, 0.75])]
    assert "arm, seed 1: top1 0.7500" in capsys.readouterr().out
