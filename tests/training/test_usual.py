import dataclasses

import pytest

from limbeck.tasks.detection.recipe import BUDGET as DETECTION
from limbeck.tasks.semantic.recipe import BUDGET as SEMANTIC
from limbeck.training.optimizer import learning_rate
from limbeck.training.recipe import Budget


def test_sgd_learns_linearly_faster_from_large_batches_and_else_by_the_root():
    sgd, adamw = (
        [Budget(optimizer=name, batch_size=size).highest_rate for size in (128, 512)] for name in ("sgd", "adamw")
    )
    assert sgd == pytest.approx([0.1 / 2**0.5, 0.2])
    assert adamw[1] == pytest.approx(2 * adamw[0])
    assert adamw[0] == pytest.approx(1e-3, rel=0.02)


def test_another_optimizer_brings_its_own_rate_and_decay_in_every_task():
    for budget in (Budget(), SEMANTIC, DETECTION):
        other = dataclasses.replace(budget, optimizer="adamw")
        assert other.highest_rate < budget.highest_rate / 5  # SGD's 0.05 would break a run of AdamW
        assert other.decay == 0.05


def test_detectors_and_segmenters_start_from_their_fields_rates():
    assert (SEMANTIC.highest_rate, SEMANTIC.decay) == (0.01, 5e-4)
    assert (DETECTION.highest_rate, DETECTION.decay) == (0.01, 1e-4)
    assert dataclasses.replace(DETECTION, batch_size=16).highest_rate == 0.02


def test_a_rate_that_is_given_is_taken_whatever_the_batch():
    assert Budget(learning_rate=0.3, batch_size=7, optimizer="adamw").highest_rate == 0.3


def test_the_rate_rises_over_a_twentieth_of_the_run_unless_told_otherwise():
    rates = [learning_rate(Budget(epochs=20), step, 200, 10) for step in range(200)]
    assert rates.index(max(rates)) == 9
    assert rates[0] == pytest.approx(max(rates) / 10)
    assert learning_rate(Budget(epochs=20, warmup_epochs=0), 0, 200, 10) == max(rates)


def test_gradients_are_clipped_by_default_and_not_at_zero():
    assert Budget().clip == 5.0
    with pytest.raises(ValueError, match="None for no clipping"):
        Budget(clip=0.0)
