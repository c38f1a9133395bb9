"""``limbeck compress``: a trained model made smaller, slice by slice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_type_hints

from limbeck.commands.arguments import parse_options
from limbeck.commands.compress_curve import curve
from limbeck.commands.compression import Compression, Options
from limbeck.commands.record import as_started
from limbeck.commands.words import absolute, values_of
from limbeck.models.run_folder import RunFolder
from limbeck.tasks import TASKS, task_kind
from limbeck.training.compression import Shared

HELP = """\
limbeck compress TASK MODEL --data DIR --ratio 0.5 --out RUN makes a trained
model smaller: its layers become factors that give what the layers gave, which
then learn slice by slice, without labels. TASK is one of
{tasks}; MODEL is the folder of a
run, or a name as limbeck train takes it, with --weights.

limbeck compress RUN --resume goes on with a run that was stopped or killed.
With --ratio 0.3 0.5 0.7, several runs are made in folders below --out, and put
side by side in a table and a picture.

The options: limbeck compress classification MODEL --help"""


def compress(words: list[str], shared: Shared | None = None) -> None:
    """A trained model made smaller."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP.format(tasks=", ".join(TASKS)))
        return
    if RunFolder(Path(words[0])).record.is_file():
        words = as_started(RunFolder(Path(words[0])), words[1:], compress=True)[1:]
    if words[0] not in TASKS:
        raise ValueError(f"limbeck compress takes a task ({', '.join(TASKS)}) or a run folder, not {words[0]!r}")
    if len(words) < 2 or (words[1].startswith("-") and words[1] not in ("-h", "--help")):
        raise ValueError(f"name the model: limbeck compress {words[0]} MODEL --data DIR --ratio 0.5 --out RUN")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("limbeck compress runs in one process; limbeck.distill_slices spreads slices over several")
    if len(values_of(words, "ratio")) > 1:
        curve(words, compress)
        return
    name, model = words[0], words[1]
    rest = ["--help"] if model in ("-h", "--help") else words[2:]
    kind = task_kind(name)
    of_data = get_type_hints(kind.train)["data"]
    parsed = parse_options(Options, of_data, f"limbeck compress {name} MODEL", rest)
    Compression(kind, absolute(model), rest, parsed, shared or Shared()).run()
