"""The statistics of batch norms, estimated anew after the layers before them have changed."""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

import torch
from torch import Tensor, nn

from limbeck.compress.layers import is_within
from limbeck.compress.passes import Batches, norms_of
from limbeck.compress.runs import Runs
from limbeck.core.modules import evaluating

TINY = 1e-12  # variances below count as nothing


def renew_norms(
    original: nn.Module, compressed: nn.Module, batches: Batches, *, but_within: Collection[str] = ()
) -> None:
    """Set the statistics of a compressed network's batch norms to what its layers give, in place.

    The data may be few: so the original's statistics are kept, and changed as those on the data differ between the two
    networks: by the difference of the means and the ratio of the variances. Where nothing changed, nothing does.

    Args:
        original: Whose statistics are taken.
        compressed: Whose are set.
        batches: The data.
        but_within: Paths of parts the norms of which stay as they are.
    """
    norms = {path: norm for path, norm in norms_of(compressed).items() if not is_within(path, but_within)}
    if not norms:
        return
    before, after = statistics(original, batches, norms), statistics(compressed, batches, norms)
    for path, norm in norms.items():
        if path not in before or path not in after:  # did not run
            continue
        assert norm.running_mean is not None
        assert norm.running_var is not None
        source = original.get_submodule(path)
        assert isinstance(source.running_mean, Tensor)
        assert isinstance(source.running_var, Tensor)
        (mean, variance), (new_mean, new_variance) = before[path], after[path]
        ratio = torch.where(variance > TINY, new_variance / variance.clamp(min=TINY), torch.ones_like(variance))
        norm.running_mean.copy_(source.running_mean + new_mean - mean)
        norm.running_var.copy_(source.running_var * ratio)


@torch.no_grad()
def statistics(model: nn.Module, batches: Batches, wanted: Collection[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Mean and variance that batch norms see, where all of them normalise by what each batch has.

    Args:
        model: Of which a copy runs, in each batch but the first no further than to the last norm that is wanted.
        batches: The data.
        wanted: Paths of the norms.
    """
    model = deepcopy(model)
    runs = Runs(model)
    with evaluating(model):
        norms = norms_of(model)
        for norm in norms.values():
            norm.reset_running_stats()
            norm.momentum = None  # the mean over batches
            norm.train()
        for batch in batches:
            runs.run(list(wanted), batch)
    return {
        path: (norm.running_mean, norm.running_var)
        for path, norm in norms.items()
        if path in wanted
        and norm.num_batches_tracked
        and norm.running_mean is not None
        and norm.running_var is not None
    }
