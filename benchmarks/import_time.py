"""What all of limbeck costs to import beside torch, which it needs: seconds, in processes of their own.

python benchmarks/import_time.py
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from statistics import median

from measure import circumstances, interleaved, ratio

ROUNDS = 9


def main() -> None:
    print(circumstances())
    code = {"torch": "import torch", "limbeck": "from limbeck import *"}
    steps = {name: partial(subprocess.run, [sys.executable, "-c", each], check=True) for name, each in code.items()}
    times = interleaved(steps, ROUNDS)
    for name in code:
        print(f"import {name:8} {median(times[name]):6.2f} s")
    print(f"import limbeck / import torch: {ratio(times, 'limbeck', 'torch'):.2f}")


if __name__ == "__main__":
    main()
