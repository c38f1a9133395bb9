import pytest
import torch

from limbeck.data.order import TrainOrder, seed_of, seeded


def keys(order):
    return [key for batch in order for key in batch]


def test_an_epoch_sees_every_sample_once_but_for_an_incomplete_batch():
    order = TrainOrder(10, 4, epoch=0, seed=0)
    indices = [index for _, index in keys(order)]
    assert len(order) == 2
    assert len(set(indices)) == 8
    assert set(indices) <= set(range(10))


def test_epochs_and_seeds_have_orders_of_their_own():
    first = keys(TrainOrder(100, 10, epoch=0, seed=0))
    assert first == keys(TrainOrder(100, 10, epoch=0, seed=0))
    assert [i for _, i in first] != [i for _, i in keys(TrainOrder(100, 10, epoch=1, seed=0))]
    assert first != keys(TrainOrder(100, 10, epoch=0, seed=1))


def test_starting_at_a_step_gives_the_rest_of_the_unbroken_epoch():
    assert list(TrainOrder(20, 4, epoch=3, seed=0, start=2)) == list(TrainOrder(20, 4, epoch=3, seed=0))[2:]


@pytest.mark.parametrize(("accumulate", "world"), [(2, 1), (1, 2), (2, 2)])
def test_micro_batches_of_all_processes_make_up_the_same_steps(accumulate, world):
    whole = list(TrainOrder(20, 8, epoch=0, seed=0))
    parts = [list(TrainOrder(20, 8, epoch=0, seed=0, accumulate=accumulate, rank=r, world=world)) for r in range(world)]
    for step, batch in enumerate(whole):
        own = [part[step * accumulate : (step + 1) * accumulate] for part in parts]
        micro = [key for micro_batches in own for keys in micro_batches for key in keys]
        assert sorted(micro) == sorted(batch)


def test_a_batch_that_does_not_divide_or_is_too_large_is_refused():
    with pytest.raises(ValueError, match="does not divide"):
        TrainOrder(20, 5, epoch=0, seed=0, accumulate=2)
    with pytest.raises(ValueError, match=r"fewer than one batch of \d+; pass --batch-size 1"):
        TrainOrder(3, 4, epoch=0, seed=0)


def test_seeded_draws_depend_on_every_part_and_leave_the_generator_as_it_was():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    with seeded(0, "augment", 1, 2):
        first = torch.rand(3)
    assert torch.equal(state, torch.get_rng_state())
    with seeded(0, "augment", 2, 1):
        assert not torch.equal(first, torch.rand(3))
    with seeded(0, "augment", 1, 2):
        assert torch.equal(first, torch.rand(3))
    assert len({seed_of(a, b) for a in range(20) for b in range(20)}) == 400
