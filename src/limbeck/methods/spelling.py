"""What is spelt on the command line as ``NAME:option=value,...``: methods and weights."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from limbeck.core.criterion import Criterion, declared_by
from limbeck.core.match import Weight
from limbeck.core.projectors import conv1x1_if_needed
from limbeck.methods.method import Method
from limbeck.methods.table import METHODS, SCHEDULES
from limbeck.models.files import file_and_name, function_in

OF_PROGRESS = ("at", "until")  # shares of the training
ABOVE_0 = ("temperature", "weight", "hidden", "width", "power", "reduction", "pool", "grid", "stage")
NOT_SPELT = ("norm", "rest", "assign", "softmax")  # modules, functions, and what the models tell


def find_method(spec: str, *, on_levels: bool = False) -> tuple[Method, Callable[..., Criterion]]:
    """The method that ``NAME:option=value,...`` names, and what makes its criterion with these and further options.

    Args:
        spec: The name and options.
        on_levels: It compares the levels of detectors' pyramids: what options it has there by default.
    """
    file, rest = file_and_name(spec)
    name, _, options = rest.partition(":")
    if file:
        own = function_in(Path(file), name)
        declared = declared_by(own)
        method = Method(own, "", "", projector=None if declared.build or declared.any_shape else conv1x1_if_needed)
        if not isinstance(own, type):  # a function of (student, teacher) is the criterion
            if options:
                raise ValueError(f"{spec}: {name} is a function, which takes no options")
            _check_arguments(own, f"{file}:{name}", truth=bool(declared.needs_truth))
            return method, lambda **_: own
    else:
        method = METHODS[known(name, METHODS, "method")]
    given = options_of(options, method.criterion, name)
    given = {**method.on_levels.options, **given} if on_levels else given
    return method, lambda **further: method.criterion(**{**further, **given})


def _check_arguments(criterion: Callable[..., Any], name: str, *, truth: bool) -> None:
    """Refuse a function that cannot be called as a criterion is, before anything is trained."""
    try:
        signature(criterion).bind(*("student", "teacher", "truth")[: 2 + truth])
    except TypeError as error:
        wanted = "(student, teacher, truth)" if truth else "(student, teacher)"
        raise ValueError(f"{name}{signature(criterion)} is no criterion, which takes {wanted}: {error}") from None


def weight_of(spec: float | str) -> Weight:
    """A weight from ``"auto"``, a number, or ``NAME:option=value,...`` for a schedule."""
    if not isinstance(spec, str) or spec == "auto":
        return spec  # type: ignore[return-value]
    try:
        return float(spec)
    except ValueError:
        name, _, options = spec.partition(":")
        schedule = SCHEDULES[known(name, SCHEDULES, "weight (a number, auto, or a schedule)")]
        given = options_of(options, schedule, name)
        if "weight" not in given:
            raise ValueError(f"{name} needs a weight: {name}:weight=1") from None
        return schedule(**given)


def known(name: str, names: Mapping[str, Any], kind: str) -> str:
    if name not in names:
        by_lower = {each.lower(): each for each in names}
        nearest = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
        meant = f", did you mean {by_lower[nearest[0]]}?" if nearest else ";"
        raise ValueError(f"no {kind} {name!r}{meant} there are {', '.join(names)}")
    return name


def options_of(text: str, make: Callable[..., Any], name: str) -> dict[str, Any]:
    """Keyword arguments from ``option=value,...``; values are Python's literals, or words."""
    takes = [parameter for parameter in signature(make).parameters if parameter not in NOT_SPELT]
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError(text)
        given = {
            keyword.arg or "**": keyword.value.id
            if isinstance(keyword.value, ast.Name)
            else ast.literal_eval(keyword.value)
            for keyword in call.keywords
        }
    except (SyntaxError, ValueError):
        raise ValueError(f"{name}:{text}: options are written {name}:option=value,option=value") from None
    for option, value in given.items():
        if option not in takes:
            raise ValueError(f"{name} has no option {option!r}; it has {', '.join(takes) or 'none'}")
        if name in METHODS or name in SCHEDULES:  # one's own may mean anything
            _check_value(name, option, value, signature(make).parameters[option])
    return given


def _check_value(name: str, option: str, value: Any, parameter: Parameter) -> None:
    """Refuse what is no number where one is wanted, and numbers with which no method of limbeck's makes sense."""
    kinds = set(re.findall(r"\w+", getattr(parameter.annotation, "__name__", str(parameter.annotation))))
    is_row = "tuple" in kinds
    wanted = "numbers, as (0.3, 0.8)" if is_row else "a number" if kinds & {"int", "float"} else ""
    numbers = value if isinstance(value, tuple) else (value,)
    if not wanted or (value is None and "None" in kinds):
        return
    if isinstance(value, tuple) is not is_row or not all(isinstance(each, int | float) for each in numbers):
        raise ValueError(f"{name}:{option}={value}: {option} is {wanted}")
    most = 1.0 if option in OF_PROGRESS else sys.float_info.max
    least = "above 0" if option in ABOVE_0 else "0 or more"
    if not all(0 <= each <= most and (each or option not in ABOVE_0) for each in numbers):
        raise ValueError(f"{name}:{option}={value}: {option} must be finite, {least}" + ", and at most 1" * (most == 1))
