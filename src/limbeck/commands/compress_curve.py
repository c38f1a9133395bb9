"""``limbeck compress ... --ratio 0.3 0.5 0.7``: a run for each ratio, and what it costs against what it gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from limbeck.commands.compress_tables import print_costs
from limbeck.commands.report import import_altair
from limbeck.commands.words import values_of, without
from limbeck.models.run_folder import RunFolder
from limbeck.training.checkpoint import write_atomically
from limbeck.training.compression import Places, Shared


def curve(words: list[str], run: Callable[[list[str], Shared], None]) -> None:
    """Do a run for each ratio in a folder of its own below ``--out``, and put them side by side.

    Args:
        words: The command line, with several ratios.
        run: The command with one ratio, and with what the ratios share.

    Raises:
        ValueError: There is no ``--out``.
    """
    if not (folders := values_of(words, "out")):
        raise ValueError("several ratios are several runs: name the folder that takes them with --out")
    out = Path(folders[0])
    rows: list[dict[str, Any]] = []
    shared = Shared()
    for ratio in dict.fromkeys(values_of(words, "ratio")):
        folder = RunFolder(out / f"ratio-{ratio}")
        run([*without(words, {"ratio", "out"}), "--ratio", ratio, "--out", str(folder)], shared)
        places = Places(folder)
        if not places.costs.is_file():  # a dry run
            continue
        before, after = json.loads(places.costs.read_text())
        rows += [after | {"model": ratio}] if rows else [before, after | {"model": ratio}]
    if rows:
        write_atomically(out / "curve.json", json.dumps(rows, indent=1).encode())
        print_costs(rows)
        _draw(rows, out / "curve.svg")


def _draw(rows: list[dict[str, Any]], file: Path) -> None:
    if find_spec("altair") is None or find_spec("vl_convert") is None:
        print(f"{file} is drawn where altair and vl-convert are: pip install 'limbeck[report]'")
        return
    import_altair()
    import altair as alt

    metric = list(rows[0])[1]
    data = alt.Data(values=rows)  # type: ignore[no-untyped-call]
    axes = alt.Chart(data).encode(
        x=alt.X("parameters:Q", title="parameters"),
        y=alt.Y(f"{metric}:Q", scale=alt.Scale(zero=False)),
    )
    labels = axes.mark_text(dy=-12).encode(text="model:N")
    (axes.mark_line(point=True) + labels).properties(width=480, height=300).save(str(file))
    print(f"drawn: {file}")
