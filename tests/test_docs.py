import re

import pytest
import torch
from torch import nn

from limbeck.cli import main
from tests.networks import Net
from tests.places import ROOT

DOCS = ROOT / "docs"


def run(page, number):
    """Run a code block of a page with a student, a teacher and images, and give what it leaves."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 9, 9)
    names = {"student": Net(4), "teacher": Net(8), "images": images, "loader": [(images, None)] * 20}
    exec(re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)[number], names)
    return names


def test_fitnet_is_spelt_as_the_method_of_that_name():
    names = run("fitnet_simkd.md", 0)
    assert [type(layer) for layer in names["match"].projector] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert names["distiller"](names["images"]).losses["MSELoss:layer4"] == 0  # the weight is being measured


def test_simkd_as_deployed_gives_what_the_teacher_predictions_about_the_features_that_were_trained():
    names = run("fitnet_simkd.md", 1)
    images, deployed, distiller = names["images"], names["deployed"], names["distiller"].eval()
    target = names["teacher"].layer4(images)
    torch.testing.assert_close(distiller(images).loss, (deployed_map(deployed, images) - target).square().mean())
    assert distiller(images).loss < 0.9 * target.square().mean()
    assert deployed(images).shape == (4, 5)


def deployed_map(deployed, images):
    return deployed.projector(deployed.student.layer4(images))


def test_the_table_of_methods_is_what_the_command_prints(capsys):
    main(["methods", "--markdown"])
    assert capsys.readouterr().out in (DOCS / "methods.md").read_text()


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_name_files_that_exist(page):
    links = re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text())
    assert not [link for link in links if "://" not in link and not (DOCS / link).exists()]
