"""What `import limbeck` costs beside `import torch`, which it needs: seconds, in processes of their own.

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
    names = ("torch", "limbeck")
    steps = {name: partial(subprocess.run, [sys.executable, "-c", f"import {name}"], check=True) for name in names}
    times = interleaved(steps, ROUNDS)
    for name in names:
        print(f"import {name:8} {median(times[name]):6.2f} s")
    print(f"import limbeck / import torch: {ratio(times, 'limbeck', 'torch'):.2f}")


if __name__ == "__main__":
    main()
