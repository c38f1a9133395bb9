"""How these runs were made: commands, versions, hashes, and what to cite."""

from __future__ import annotations

import shlex

from limbeck.commands.methods import cited
from limbeck.commands.report.parts import Part, Section, Table, Text
from limbeck.commands.report.runs import Comparison, Run


def matches(comparison: Comparison) -> Section:
    """The table that the preflight made."""
    rows = []
    for way in comparison.ways:
        run = next((run for run in way.runs if run.matches), None)
        for match in run.matches if run else ():
            grid = "as it is" if match["grid"] == "same" else match["grid"]
            own = f"{match['parameters']:,}" if match["parameters"] else ""
            rows.append([way.name, match["match"], match["student"], match["teacher"], grid, match["weight"], own])
    title = "Matches"
    if not rows:
        return Section(title, "These runs recorded no matches.")
    head = ["", "match", "student layer", "teacher layer", "grid", "weight", "own parameters"]
    about = (
        "What follows what, with the shape of one image's feature; on which grid; and what projector and criterion "
        "have to train, which is dropped afterwards."
    )
    return Section(title, about, [Table(head, rows, numbers=5)])


def origin(comparison: Comparison) -> Section:
    """Everything that is needed to make these runs again."""
    parts: list[Part] = [_versions(comparison.runs)] if any(run.record for run in comparison.runs) else []
    for run in comparison.runs:
        record = run.record
        if not record:
            continue
        hashes = [f"# sha256 of {name}: {digest}" for name, digest in record.get("sha256", {}).items()]
        commands = [f"# commit {record.get('commit') or 'unknown'}", *hashes, shlex.join(_command_line(record))]
        commands += [f"# resumed: {shlex.join(each['command_line'])}" for each in record.get("resumed", [])]
        parts.append(Text("\n".join(commands), title=run.name, is_code=True))
    if unrecorded := [run.name for run in comparison.runs if not run.record]:
        parts.append(Text(f"Started by a Python program, so without a command: {', '.join(unrecorded)}."))
    used = dict.fromkeys(name for run in comparison.runs for name in run.record.get("uses", []))
    entries, unknown = cited(list(used))
    if unknown:
        parts.append(Text(f"Not limbeck's own, so name their source yourself: {', '.join(unknown)}."))
    parts.append(Text("\n\n".join(entries), title="To cite", is_code=True))
    return Section("Made by", "", parts)


def _command_line(record: dict[str, list[str]]) -> list[str]:
    program, *words = record.get("command_line", [""])
    return ["limbeck", *words] if "limbeck" in program else [program, *words]


def _versions(runs: list[Run]) -> Table:
    given = {run.name: run.record.get("versions", {}) for run in runs if run.record}
    packages = dict.fromkeys(package for versions in given.values() for package in versions)
    columns = list(given)
    if all(versions == given[columns[0]] for versions in given.values()):
        columns, head = columns[:1], ["", "version"]
    else:
        head = ["", *columns]
    return Table(head, [[package, *(given[each].get(package, "") for each in columns)] for package in packages])
