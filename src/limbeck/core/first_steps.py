"""Whether the weights of projectors and criteria are trained as the student is, looked at in the first steps."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from limbeck.core.match import Match

STEPS = 8  # of the optimizer, that change the student and not one weight beside it: by then these are left out
CHECKS = 256  # at most, of which several may be of one step, where gradients are accumulated
UNCOUNTED = 64  # checks after which values are compared: torch does not count the changes of a fused optimizer


def check_unwrapped(student: nn.Module, matches: Sequence[Match]) -> None:
    """Refuse a student that synchronises its gradients itself, beside weights whose gradients nobody would synchronise.

    Raises:
        ValueError: The student, or a part of it, is wrapped in DDP or sharded by FSDP.
    """
    own = [str(match) for match in matches if any(weight.requires_grad for weight in match.parameters())]
    if not own:
        return
    fsdp = sys.modules.get("torch.distributed.fsdp")  # not loaded for this
    sharded = (fsdp.FSDPModule, fsdp.FullyShardedDataParallel) if fsdp is not None else ()
    for part in student.modules():
        if isinstance(part, (DistributedDataParallel, *sharded)):
            how = "is in DistributedDataParallel" if isinstance(part, DistributedDataParallel) else "is sharded"
            raise ValueError(
                f"the student {how} by itself, so that each process would train the weights of {', '.join(own)} on its "
                "own images alone; pass the bare student, and wrap or shard the distiller"
            )


class FirstSteps:
    """Warns where an optimizer trains the student, and was never given what is to be trained beside it."""

    def __init__(self, student: nn.Module, matches: Iterable[Match]):
        self._seen = [_version(student), _version(*_meant(matches))]
        self._alone = self._checks = 0
        self._norms: list[list[Tensor]] = []  # at the first check

    def check(self, student: nn.Module, matches: Sequence[Match]) -> bool:
        """Check the changes of each weight, which torch counts; whether further steps are to be checked."""
        now = [_version(student), _version(*_meant(matches))]
        changed = [before != after for before, after in zip(self._seen, now, strict=True)]
        self._seen = now
        self._checks += 1
        if changed[1] or not now[1] or self._checks > CHECKS:
            return False
        self._alone += changed[0]
        if self._alone < STEPS and not self._alone_by_value(student, matches):
            return True
        own = [str(match) for match in _meant(matches) if _trained(match)]
        warnings.warn(
            f"the first steps have changed the student, and none the weights of {', '.join(own)}: make the optimizer "
            "of distiller.parameters(), after the distiller; or freeze these weights by requires_grad_(False)",
            stacklevel=2,
        )
        return False

    def _alone_by_value(self, student: nn.Module, matches: Sequence[Match]) -> bool:
        """Whether the student alone has other weights than at first, by a check that comes late and once."""
        if self._checks not in (1, UNCOUNTED):
            return False
        norms = [_norms(student), _norms(*_steady(matches))]
        if self._checks == 1:
            self._norms = norms
            return False
        of_student, of_matches = (_differ(*pair) for pair in zip(self._norms, norms, strict=True))
        return of_student and bool(norms[1]) and not of_matches


def _meant(matches: Iterable[Match]) -> list[Match]:
    """Those that are to teach: others are only looked at."""
    return [match for match in matches if match.constant != 0]


def _steady(matches: Iterable[Match]) -> list[Match]:
    """Those that teach from the first step on: the others' weights may have a gradient of 0 for a while."""
    return [match for match in _meant(matches) if match.schedule is None]


def _trained(module: nn.Module) -> list[Tensor]:
    return [weight for weight in module.parameters() if weight.requires_grad and not weight.is_inference()]


def _version(*modules: nn.Module) -> tuple[int, ...]:
    """How often their weights were changed; nothing where none is trained."""
    return tuple(weight._version for module in modules for weight in _trained(module))


def _norms(*modules: nn.Module) -> list[Tensor]:
    """Of the weights that are trained; of sharded ones none, which would have to be gathered."""
    weights = [weight for module in modules for weight in _trained(module)]
    return [weight.detach().norm() for weight in weights if type(weight) is nn.Parameter]


def _differ(before: list[Tensor], after: list[Tensor]) -> bool:
    return any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
