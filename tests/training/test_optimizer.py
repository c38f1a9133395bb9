import pytest

from limbeck.training.optimizer import learning_rate
from limbeck.training.recipe import Budget

STEPS, PER_EPOCH = 100, 10


def rates(schedule, warmup_epochs=0.0):
    budget = Budget(learning_rate=2.0, schedule=schedule, warmup_epochs=warmup_epochs)
    return [learning_rate(budget, step, STEPS, PER_EPOCH) for step in range(STEPS)]


def test_poly_falls_as_the_rest_of_the_run_to_the_power_of_nine_tenths():
    assert rates("poly") == pytest.approx([2 * (1 - step / STEPS) ** 0.9 for step in range(STEPS)])
    assert rates("poly")[0] == 2


def test_poly_falls_from_the_end_of_the_warm_up():
    risen = rates("poly", warmup_epochs=2)
    assert risen[:20] == pytest.approx([2 * (step + 1) / 20 for step in range(20)])
    assert risen[20:] == pytest.approx([2 * (1 - step / 80) ** 0.9 for step in range(80)])


def test_poly_and_cosine_begin_at_the_highest_rate_and_never_rise():
    for schedule in ("poly", "cosine"):
        fallen = rates(schedule)
        assert fallen[0] == 2
        assert fallen == sorted(fallen, reverse=True)
        assert 0 < fallen[-1] < 0.1


def test_steps_and_constant_are_what_they_are_called():
    assert [rates("steps")[step] for step in (0, 29, 30, 59, 60, 89, 90, 99)] == pytest.approx(
        [2, 2, 0.2, 0.2, 0.02, 0.02, 0.002, 0.002]
    )
    assert set(rates("constant")) == {2}


def test_two_steps_are_after_eight_and_eleven_of_twelve_epochs():
    budget = Budget(learning_rate=2.0, schedule="two-steps", warmup_epochs=1)
    found = [learning_rate(budget, step, 120, 10) for step in range(120)]
    assert found[:10] == pytest.approx([2 * (step + 1) / 10 for step in range(10)])
    assert found[10:] == pytest.approx([2] * 70 + [0.2] * 30 + [0.02] * 10)
    assert rates("two-steps")[66:68] == pytest.approx([2, 0.2])  # two thirds of 100 steps
    assert rates("two-steps")[91:93] == pytest.approx([0.2, 0.02])
