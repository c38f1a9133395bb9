import re

import torch
import torch.nn.functional as F

from limbeck import Distiller, Match
from limbeck.criteria import ChannelTransform
from tests.networks import Net
from tests.places import ROOT

README = (ROOT / "README.md").read_text()


def test_the_diff_runs_before_and_after_and_adds_a_loss_that_reaches_the_student():
    (diff,) = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    losses = {}
    for sign in "-+":
        torch.manual_seed(0)
        student, teacher, images = Net(4), Net(8), torch.randn(2, 3, 9, 9)
        names = {"student": student, "teacher": teacher, "images": images, "Distiller": Distiller, "Match": Match}
        names |= {"ChannelTransform": ChannelTransform, "F": F, "loader": [(images, torch.tensor([1, 2]))] * 11}
        code = "\n".join(line[2:] for line in diff.splitlines() if line[0] in f" {sign}")
        exec(code + "\n    student.zero_grad()\n    loss.backward()", names)
        losses[sign] = names["loss"].item()
        assert student.layer4[0].weight.grad.any()
    assert names["out"].loss > 0
    assert losses["+"] > losses["-"]


def test_the_readme_is_short_and_names_files_that_exist():
    assert len(README.splitlines()) <= 150
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]
