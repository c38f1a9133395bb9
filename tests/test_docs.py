import os
import re
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist
from PIL import Image
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


def blocks_of(page, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """What the blocks of own.md leave, run where they may write."""
    monkeypatch.chdir(tmp_path)
    names = {}
    torch.manual_seed(0)
    for block in blocks_of("own.md"):
        exec(block, names)
    return names


def test_the_blocks_of_ones_own_page_run_one_after_another(own):
    assert own["out"].loss > 0
    assert own["small"](10)(own["images"]).shape == (16, 10)
    assert own["distiller"](own["images"]).loss > 0


def test_the_blocks_of_several_gpus_train_under_ddp_and_fsdp(own, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        for block in blocks_of("distributed.md"):
            for parameter in own["student"].parameters():
                parameter.grad = None
            exec(block, own)
            assert all(parameter.grad is not None for parameter in own["distiller"].parameters())
    finally:
        dist.destroy_process_group()


def test_a_first_distillation_is_made_by_the_commands_that_stand_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((8, 8), 50).save("digit.png")
    for command in "".join(blocks_of("start.md", "sh")).splitlines():
        words = command.split()
        assert words[0] == "limbeck"
        shorter = {"train": ["--max-steps", "2"], "distill": ["--max-steps", "2", "--no-teacher-check"], "evaluate": []}
        main([*words[1:], *shorter[words[1]]])
    names = {}
    exec(blocks_of("start.md")[0], names)
    assert names["probabilities"].shape == (10,)


def test_the_site_is_built_without_a_warning(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(tmp_path / "trees"), str(DOCS)]
    ran = subprocess.run([*build, str(tmp_path / "site")], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
    pages = {str(path.relative_to(tmp_path / "site")) for path in (tmp_path / "site").rglob("*.html")}
    assert {"start.html", "generated/api.html", "generated/methods/ChannelTransform.html"} <= pages
    for page in pages:
        for link in re.findall(r'href="([^"#:]+)[#"]', (tmp_path / "site" / page).read_text()):
            target = (tmp_path / "site" / page).parent / link.partition("?")[0]
            assert target.exists(), f"{page} names {link}"
