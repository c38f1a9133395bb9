"""What limbeck costs to import, and its commands to say what they do, beside torch: seconds, in processes of their own.

python benchmarks/import_time.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from statistics import median

from measure import circumstances, interleaved, ratio

ROUNDS = 9
COMMANDS = (
    *("--help", "evaluate --help", "distill classification --help", "train detection --help"),
    *("methods", "layers timm:resnet50", "layers torchvision:resnet50"),
)


def main() -> None:
    print(circumstances())
    code = {"torch": "import torch", "limbeck": "from limbeck import *"}
    steps = {name: partial(subprocess.run, [sys.executable, "-c", each], check=True) for name, each in code.items()}
    times = interleaved(steps, ROUNDS)
    for name in code:
        print(f"import {name:8} {median(times[name]):6.2f} s")
    print(f"import limbeck / import torch: {ratio(times, 'limbeck', 'torch'):.2f}")
    words = {f"limbeck {command}": ["-m", "limbeck", *command.split()] for command in COMMANDS}
    words = {**{each: ["-c", each] for each in ("import torch", "import timm")}, **words}
    rounds = [{name: cpu_seconds(each) for name, each in words.items()} for _ in range(ROUNDS)]
    for name in words:
        print(f"{name:40} {median(times[name] for times in rounds):6.2f} s of CPU")


def cpu_seconds(words: list[str]) -> float:
    """What Python takes for a command, on all cores together."""
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    return sum(getattr(after, part) - getattr(before, part) for part in ("children_user", "children_system"))


if __name__ == "__main__":
    main()
