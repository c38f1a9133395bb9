import re

import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from limbeck.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    command = "train classification --data digits --images 50 --batch-size 25 --model timm:test_resnet --size 32"
    main([*command.split(), "--epochs", "1", "--workers", "0", "--out", str(folder)])
    return folder


def test_a_finished_run_has_a_card_as_the_hub_takes_it(run):
    text = (run / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert (header["license"], header["library_name"]) == ("unknown", "timm")
    assert header["pipeline_tag"] == "image-classification"
    card = ModelCard(text)
    assert card.data.eval_results[0].metric_type == "top1"
    assert f"| top1 | {card.data.eval_results[0].metric_value:.4f} |" in text
    assert "trained on `digits` alone" in text
    assert "the shorter side is brought to 8 pixels and the middle square taken, which is brought to 32." in text
    assert str(run.parent) not in text


def test_the_program_in_a_card_loads_the_student_without_limbeck(run, monkeypatch):
    monkeypatch.chdir(run)
    names = {}
    exec(re.findall(r"```python\n(.*?)```", (run / "README.md").read_text(), re.DOTALL)[1], names)
    stored = load_file("student.safetensors")
    assert all(tensor.equal(stored[name]) for name, tensor in names["model"].state_dict().items())


def test_a_card_that_somebody_wrote_is_left_as_it_is(run):
    (run / "README.md").write_text("mine")
    main(["train", str(run), "--resume", "--epochs", "2"])
    assert (run / "README.md").read_text() == "mine"
