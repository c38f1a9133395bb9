"""Train the slices of a compressed network: on one process, or spread over several."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence, Sized
from typing import Any

from torch import distributed, nn

from limbeck.compress.cost import flops_by_module
from limbeck.compress.factorise import Compressed
from limbeck.compress.norms import renew_norms
from limbeck.compress.passes import Batches
from limbeck.compress.slices import check_slices, share_out, slices_of
from limbeck.compress.training import Inputs, SliceTraining
from limbeck.core.modules import Example

NORM_BATCHES = 16  # from which the statistics of batch norms outside of all slices are estimated anew


def distill_slices(
    original: nn.Module,
    compressed: Compressed,
    data: Batches,
    *,
    slices: Sequence[str] | str = "blocks",
    inputs: Inputs = "original",
    epochs: int = 1,
    rate: float = 1e-3,
    patience: int | None = 3,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, float]:
    """Train each slice of a compressed network by itself to give what the original's slice gives, without labels.

    arXiv 2605.19842. Started by ``torchrun``, the processes share the slices among them, each goes over all the data,
    and they talk once, at the end; the result is that of one process.

    Args:
        original: As it was given to ``factorise``; in eval mode afterwards.
        compressed: What that gave; its model is changed.
        data: Batches of inputs, gone over once an epoch.
        slices: ``blocks``, ``layers``, or the paths of any parts.
        inputs: What the slices are fed with: the ``original``'s activations, or the ``compressed`` network's, which is
            better where much is saved, and needs one process.
        epochs: At most.
        rate: Highest learning rate, of Adam; it falls to 0 as a cosine.
        patience: Epochs in a row without improvement after which a slice stops; ``None``: never.
        say: Told of each epoch.

    Returns:
        The relative squared error of each slice in its last epoch.
    """
    layers = [row.path for row in compressed.rows]
    paths = slices_of(original, layers, slices) if isinstance(slices, str) else list(slices)
    check_slices(original, paths, layers)
    mine = [paths[index] for index in share(original, paths, inputs, next(iter(data)))]
    training = SliceTraining(original, compressed.model, mine, inputs=inputs, rate=rate, patience=patience)
    steps = len(data) if isinstance(data, Sized) else None
    for epoch in range(epochs):
        for step, batch in enumerate(data):
            training.step(batch, (epoch + (step / steps if steps else 0)) / epochs)
        training.finish_epoch()
        errors = training.errors()
        say(f"epoch {epoch + 1} of {epochs}: error {sum(errors.values()) / max(1, len(errors)):.4g} a slice")
        if training.is_done:
            break
    errors = exchange(compressed.model, training)
    renew_norms(original, compressed.model, list(itertools.islice(data, NORM_BATCHES)), but_within=paths)
    return errors


def share(original: nn.Module, paths: Sequence[str], inputs: Inputs, example: Example) -> list[int]:
    """The slices of this process, by their place.

    Raises:
        ValueError: There are several processes, but a slice waits for what the one before gives.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return list(range(len(paths)))
    if inputs == "compressed":
        raise ValueError("slices fed by the compressed network follow each other: train them on one process")
    flops = flops_by_module(original, example)
    return share_out([float(flops.get(path, 0)) for path in paths], world)[int(os.environ["RANK"])]


def exchange(model: nn.Module, training: SliceTraining) -> dict[str, float]:
    """Give every process the slices that the others have trained; and the errors of all slices."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return training.errors()
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    mine = {path: trainer.module.state_dict() for path, trainer in training.trainers.items()}
    cpu = {path: {name: tensor.cpu() for name, tensor in state.items()} for path, state in mine.items()}
    gathered: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(gathered, (cpu, training.errors()))
    for states, _ in gathered:
        for path, state in states.items():
            model.get_submodule(path).load_state_dict(state)
    return dict(itertools.chain.from_iterable(errors.items() for _, errors in gathered))
