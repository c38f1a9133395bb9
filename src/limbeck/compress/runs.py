"""Forward passes of a network in which its slices are met, one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from limbeck.compress.passes import EnoughError, on_device_of
from limbeck.core.modules import Example, call

Call = tuple[tuple[Any, ...], dict[str, Any]]  # what a module is called with


class Runs:
    """Passes of one network, each of which ends once the slices have run as often as in the first, whole one."""

    def __init__(self, model: nn.Module):
        self.model = model
        self._calls: dict[str, int] = {}

    @torch.no_grad()
    def run(
        self,
        paths: Sequence[str],
        batch: Example,
        *,
        before: Callable[[str, Call], None] | None = None,
        after: Callable[[str, Any], Any] = lambda path, output: None,
        with_gradient: bool = False,
    ) -> None:
        """Pass a batch through the network.

        Args:
            paths: Of the slices.
            batch: What the network is called with.
            before: Gets a copy of what each slice takes, which the slice itself may change in place.
            after: Gets what it gives, and may give what goes on in its stead.
            with_gradient: Whether the slices, each from inputs without a graph, have a graph.
        """
        left = sum(self._calls.get(path, 0) for path in paths)
        counts = dict.fromkeys(paths, 0)

        def enter(path: str, args: Any, kwargs: Any) -> Call:
            inputs = copied((args, kwargs)) if before or with_gradient else (args, kwargs)
            if before:
                before(path, inputs)
            torch.set_grad_enabled(with_gradient)
            return inputs if with_gradient else (args, kwargs)

        def leave(path: str, output: Any) -> Any:
            nonlocal left
            torch.set_grad_enabled(False)
            instead = after(path, output)
            counts[path] += 1
            left -= 1
            if not left:
                raise EnoughError
            return instead

        hooks = []
        for path in paths:
            module = self.model.get_submodule(path)
            first = module.register_forward_pre_hook(
                lambda _, args, kwargs, path=path: enter(path, args, kwargs), with_kwargs=True
            )
            last = module.register_forward_hook(
                lambda _, args, kwargs, output, path=path: leave(path, output), with_kwargs=True
            )
            hooks += [first, last]
        try:
            call(self.model, on_device_of(self.model, batch))
            self._calls |= counts
        except EnoughError:
            pass
        finally:
            for hook in hooks:
                hook.remove()


def copied(values: Any) -> Any:
    """Values with their tensors copied, without a graph."""
    return tree_map_only(Tensor, lambda tensor: tensor.detach().clone(), values)
