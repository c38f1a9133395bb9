import json
import re

import pytest

from limbeck.cli import main
from limbeck.commands.methods import bibliography
from limbeck.methods.table import FURTHER_PAPERS, METHODS


def test_methods_are_listed_with_paper_weight_and_projector(capsys):
    main(["methods"])
    assert "ChannelTransform" in capsys.readouterr().out
    main(["methods", "--markdown"])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[2:]] == list(METHODS)
    cells = {row[0]: row for row in rows}
    assert cells["ChannelTransform"][1] == "arXiv 2303.13212"
    assert cells["ChannelDistillation"][3:6] == ["stages", "conv_bn_relu_if_positive", "6"]
    assert cells["ChannelDistillation"][-1] == f"{256 * 256 + 2 * 256:,}"
    assert cells["ChannelTransform"][-1] == f"{2 * (256 * 256 + 256):,}"


@pytest.mark.parametrize("name", METHODS)
def test_a_published_weight_says_what_it_belongs_to_and_auto_belongs_to_anything(name):
    assert bool(METHODS[name].published) == (METHODS[name].weight != "auto")
    assert not METHODS[name].published or re.search(r"[\d,]+ classes.* batch \d+", METHODS[name].published)


def test_every_method_has_an_entry_and_every_entry_a_use():
    used = {method.paper for method in METHODS.values()} | {*FURTHER_PAPERS.values(), "limbeck"}
    assert set(bibliography()) == used


@pytest.mark.parametrize("key", bibliography())
def test_entries_are_bibtex_with_author_title_year_and_a_place(key):
    entry = bibliography()[key]
    assert re.fullmatch(r"@(misc|inproceedings)\{\w+,\n(  \w+ = \{.+\},\n)+\}", entry)
    fields = dict(re.findall(r"(\w+) = \{(.*)\}", entry))
    assert {"title", "author", "year"} <= fields.keys()
    assert key == "limbeck" or {"eprint", "url"} & fields.keys()
    assert fields["year"].isdigit()
    assert fields["year"] in key or key == "limbeck"


def test_the_papers_of_a_run_are_cited_once_each_and_what_is_not_ours_is_said(tmp_path, capsys):
    (tmp_path / "recipe.json").write_text(
        json.dumps({"uses": ["GuidedKD", "ChannelDistillation", "MyLoss", "orthogonal"]})
    )
    main(["cite", str(tmp_path)])
    said = capsys.readouterr()
    keys = re.findall(r"@\w+\{(\w+),", said.out)
    assert keys == ["zhou2020channel", "miles2024vkd", "limbeck"]
    assert "MyLoss is not limbeck's own" in said.err


def test_a_folder_that_is_no_run_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["cite", str(tmp_path)])
    assert "has no recipe.json" in capsys.readouterr().err


def test_a_record_that_names_no_methods_is_refused(tmp_path, capsys):
    (tmp_path / "recipe.json").write_text('{"seed": 1}')
    with pytest.raises(SystemExit):
        main(["cite", str(tmp_path)])
    assert f"{tmp_path / 'recipe.json'} does not say which methods" in capsys.readouterr().err
