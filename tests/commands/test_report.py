"""The page about runs: what it says, and that a browser opens it without an error and draws every chart."""

import json
import re
import shutil
import subprocess
import sys
from html import unescape

import pytest

from limbeck.cli import main
from limbeck.commands import report
from limbeck.commands.report.features import similarities
from limbeck.commands.report.runs import Run, compared, paired
from limbeck.commands.report.verdict import signed
from limbeck.models.run_folder import RunFolder
from limbeck.training.compare import difference
from limbeck.training.loop import train
from tests.runs import log_of, mistake
from tests.training.test_loop import budget, distilled, teacher  # noqa: F401
from tests.training.test_resume import alone

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def runs(teacher, tmp_path_factory):  # noqa: F811
    """A student alone and distilled, two seeds each."""
    pytest.importorskip("altair")
    folder = tmp_path_factory.mktemp("a folder of runs")
    for seed in (0, 1):
        train(alone(seed=seed), folder / f"alone-{seed}")
        recipe = distilled(teacher, teacher_check=True, budget=budget(epochs=2, seed=seed))
        train(recipe, folder / f"distilled-{seed}", record={"command": "distill", "uses": ["ChannelTransform"]})
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "a page.html"
    main(["report", *map(str, runs), "--out", str(out)])
    return out


def text_of(path):
    """The words of a page."""
    content = re.sub(r"<(script|style).*?</\1>", " ", path.read_text(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", content)).split())


def written(runs, tmp_path):
    main(["report", *map(str, runs), "--out", str(tmp_path / "page.html")])
    return text_of(tmp_path / "page.html")


def opened(path, *options):
    """The document after its scripts have run, and what the console says."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", *options]
    command += ["--virtual-time-budget=20000", "--dump-dom", path.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return ran.stdout, [line for line in ran.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("chosen", [slice(None), slice(2, 3)])
def test_a_browser_draws_every_chart_and_reports_no_error(runs, tmp_path, chosen):
    page = tmp_path / "a page.html"
    main(["report", *map(str, runs[chosen]), "--out", str(page)])
    charts = page.read_text().count('<div class="chart">')
    assert charts >= 8
    document, console = opened(page)
    assert console == []
    assert document.count('data-drawn="yes"') == charts
    assert document.count('class="marks"') == charts


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_page_as_wide_as_a_phone_needs_no_horizontal_scrollbar(page):
    frame = page.with_name("frame.html")
    width = "const page = this.contentDocument.documentElement"
    measure = f"{width}; document.title = 'too wide by ' + (page.scrollWidth - page.clientWidth)"
    frame.write_text(
        f'<iframe style="width:390px;border:0" src="a page.html" onload="setTimeout(() => {{{measure}}}, 9000)">'
    )
    document, _ = opened(frame, "--allow-file-access-from-files")
    assert "<title>too wide by 0</title>" in document


def test_a_page_loads_nothing_and_is_small(page):
    content = re.sub(r"<script>.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', content)
    assert "url(" not in content
    assert page.stat().st_size < 5_000_000


def test_the_verdict_is_the_paired_difference_with_its_interval(runs, page):
    values = [100 * log_of(run, "val")[-1]["top1"] for run in runs]
    gain, half = difference(values[2:], values[:2])
    shown = text_of(page)
    assert f"{signed(gain)} ± {half:.2f} points against the student alone (95 % interval, 2 seeds in pairs)" in shown
    assert f"alone {values[0]:.2f} {values[1]:.2f} {(values[0] + values[1]) / 2:.2f}" in shown


def test_every_section_has_what_was_recorded(page):
    shown = text_of(page)
    for title in ("Matches", "Features", "Similarity of layers", "Gain by class", "Time of a step", "2303.13212"):
        assert title in shown
    assert "recorded no" not in shown


def test_a_run_alone_says_that_there_is_nothing_to_compare_it_with(runs, tmp_path):
    assert "No run of the student alone is here to compare it with" in written(runs[2:3], tmp_path)


def test_a_run_that_was_killed_gives_what_there_is(runs, tmp_path):
    run = tmp_path / "killed"
    shutil.copytree(runs[2], run)
    (run / "student-last.safetensors").unlink()
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(lines[: lines.rindex('"top1"')])
    shown = written([run], tmp_path)
    assert "killed is not finished: it was at step" in shown
    assert "Task loss" in shown


def test_a_run_before_its_first_step_has_a_page_too(tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "metrics.jsonl").touch()
    shown = written([tmp_path / "begun"], tmp_path)
    assert "No student of these runs was evaluated yet" in shown
    assert "No step was logged yet" in shown


def test_a_folder_of_before_these_records_has_a_page_that_says_what_is_missing(runs, tmp_path):
    run = tmp_path / "old"
    shutil.copytree(runs[2], run)
    for name in ("matches.json", "classes.jsonl", "features.safetensors"):
        (run / name).unlink()
    log = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"kind": "cost"' not in line]
    (run / "metrics.jsonl").write_text("\n".join(log))
    shown = written([run], tmp_path)
    assert shown.count("These runs recorded no") == 5


def test_names_are_shown_as_they_are(runs, tmp_path):
    shutil.copytree(runs[2], tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "<b>&")
    assert "<b>&" in written([tmp_path / "<b>&"], tmp_path)


def test_seeds_of_one_way_are_put_together_and_the_student_alone_comes_first(runs):
    comparison = compared(reversed(runs))
    assert [(way.name, [run.seed for run in way.runs]) for way in comparison.ways] == [
        ("alone", [0, 1]),
        ("distilled", [0, 1]),
    ]
    assert comparison.baseline is comparison.ways[0]


@pytest.mark.parametrize("group", [lambda seed: seed, lambda seed: {"budget": seed}])
def test_a_seed_is_read_wherever_the_record_has_it(tmp_path, group):
    for name, seed in [("small-1", 1), ("small-2", 2), ("a", 3), ("ratio-0.5", 0)]:
        (tmp_path / name).mkdir()
        arguments = {"teacher": "big", **group({"seed": seed})}
        (tmp_path / name / "recipe.json").write_text(json.dumps({"command": "compress", "arguments": arguments}))
    found = {way.name: [run.seed for run in way.runs] for way in compared(tmp_path.iterdir()).ways}
    assert found == {"small": [1, 2], "a": [3], "ratio-0.5": [0]}


def test_differences_are_of_the_seeds_that_both_have():
    assert paired({0: 0.5, 1: 0.7, 5: 0.1}, {0: 0.4, 1: 0.6, 2: 0.0}) == (pytest.approx(10), pytest.approx(0), 2)
    assert paired({3: 0.5}, {3: 0.25}) == (25, None, 1)
    assert paired({3: 0.5}, {4: 0.25}) is None


def test_similarity_is_known_before_and_after(runs):
    assert {name: set(values) for name, values in similarities(Run(RunFolder(runs[2]))).items()} == {
        ("2", "2"): {"before", "after"}
    }


def test_what_is_no_run_and_what_is_not_installed_is_said(tmp_path, monkeypatch, capsys):
    assert f"{tmp_path} is no run" in mistake(["report", str(tmp_path)], capsys)
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "altair" else object())
    assert "needs altair: pip install 'limbeck[report]'" in mistake(["report", str(tmp_path)], capsys)


def test_charts_are_drawn_for_a_user_without_a_home(tmp_path):
    pytest.importorskip("altair")
    nobody = "import os, pwd; os.environ.pop('HOME', None); pwd.getpwuid = lambda number: {}[number]"
    look = (
        "from limbeck.commands.report import import_altair; import_altair(); import altair; print('HOME' in os.environ)"
    )
    ran = subprocess.run([sys.executable, "-c", f"{nobody}; {look}"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
