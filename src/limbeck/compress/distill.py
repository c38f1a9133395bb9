"""Train the slices of a compressed network: on one process, or spread over several."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path

from torch import nn

from limbeck.compress.cache import Cache, train_cached
from limbeck.compress.cost import flops_by_module
from limbeck.compress.factorise import Compressed
from limbeck.compress.norms import renew_norms
from limbeck.compress.passes import Batches, check_batches
from limbeck.compress.processes import Processes
from limbeck.compress.slices import check_slices, share_out, slices_of
from limbeck.compress.training import Inputs, SliceTrainer, SliceTraining
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
    cache: Path | str | None = None,
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
        cache: An empty folder, seen by all processes, for what the slices take and give: the original then runs once
            over each batch, not in each epoch and not on each process, and a process takes the next slice when it is
            done with one. All batches of the first pass must fit on the disk; it is removed at the end.
        say: Told of each epoch, or with a cache of each slice.

    Returns:
        The relative squared error of each slice in its last epoch.
    """
    check_batches(data)
    layers = [row.path for row in compressed.rows]
    paths = slices_of(original, layers, slices) if isinstance(slices, str) else list(slices)
    check_slices(original, paths, layers)
    processes = Processes.started()
    if inputs == "compressed" and (cache is not None or processes.count > 1):
        raise ValueError("slices fed by the compressed network follow each other: train them on one process, uncached")
    mine = paths
    costs = _costs(original, paths, next(iter(data))) if cache is not None or processes.count > 1 else {}
    if cache is None and processes.count > 1:
        mine = [paths[index] for index in share_out(list(costs.values()), processes.count)[processes.rank]]
    training = SliceTraining(original, compressed.model, mine, inputs=inputs, rate=rate, patience=patience)
    if cache is None:
        _train(training, data, epochs, say)
        trained = training.trainers
    else:
        longest_first = sorted(paths, key=costs.__getitem__, reverse=True)  # so that the processes end together
        trained = train_cached(training, Cache(Path(cache), longest_first), data, epochs, processes, say)
    errors = _exchange(compressed.model, trained, processes)
    renew_norms(original, compressed.model, list(itertools.islice(data, NORM_BATCHES)), but_within=paths)
    return {path: errors[path] for path in paths if path in errors}


def _train(training: SliceTraining, data: Batches, epochs: int, say: Callable[[str], None]) -> None:
    """Let all slices take their steps side by side, each batch's after one pass of the original."""
    steps = len(data) if isinstance(data, Sized) else None
    for epoch in range(epochs):
        for step, batch in enumerate(data):
            training.step(batch, (epoch + (step / steps if steps else 0)) / epochs)
        training.finish_epoch()
        errors = training.errors()
        say(f"epoch {epoch + 1} of {epochs}: error {sum(errors.values()) / max(1, len(errors)):.4g} a slice")
        if training.is_done:
            return


def _costs(original: nn.Module, paths: Sequence[str], example: Example) -> dict[str, float]:
    """The multiplications of each slice."""
    flops = flops_by_module(original, example)
    return {path: float(flops.get(path, 0)) for path in paths}


def _exchange(model: nn.Module, trained: Mapping[str, SliceTrainer], processes: Processes) -> dict[str, float]:
    """Give every process the slices that the others have trained; and the errors of all slices."""
    errors = {path: trainer.error for path, trainer in trained.items() if trainer.error is not None}
    if processes.count == 1:
        return errors
    mine = {path: trainer.module.state_dict() for path, trainer in trained.items()}
    cpu = {path: {name: tensor.cpu() for name, tensor in state.items()} for path, state in mine.items()}
    gathered = processes.gather((cpu, errors))
    for states, _ in gathered:
        for path, state in states.items():
            model.get_submodule(path).load_state_dict(state)
    return dict(itertools.chain.from_iterable(errors.items() for _, errors in gathered))
