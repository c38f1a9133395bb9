import importlib.util
import json

import pytest
import torch

import limbeck
from limbeck.cli import main
from limbeck.models.run_folder import RunFolder, read_card
from tests.runs import equal, mistake, run_broken_and_unbroken, weights

NETS = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x):
        return (x + self.body(x)).relu()


def net(num_classes):
    stem = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
    return nn.Sequential(stem, Block(24), nn.MaxPool2d(2), Block(24), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(24, num_classes))

"""
DATA = ("--data", "digits", "--augment", "none")
FEW = ("--batch-size", "32", "--workers", "0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a trained classifier of digits, 92 % of them or more."""
    folder = tmp_path_factory.mktemp("a teacher")
    (folder / "nets.py").write_text(NETS)
    model = ("--model", f"{folder}/nets.py:net", "--size", "8", "--epochs", "3", "--learning-rate", "0.1")
    main(["train", "classification", *DATA, *FEW, *model, "--out", str(folder / "run")])
    return folder / "run"


@pytest.fixture(scope="module")
def compressed(trained):
    run = trained.parent / "compressed"
    main(["compress", "classification", str(trained), *DATA, *FEW, "--ratio", "0.5", "--out", str(run)])
    return run


def test_a_compressed_run_is_half_as_big_and_nearly_as_good(trained, compressed, capsys):
    card = RunFolder(compressed).card()
    before, after = (sum(tensor.numel() for tensor in weights(run).values()) for run in (trained, compressed))
    assert after < 0.55 * before  # batches are counted, too
    assert card["metrics"]["top1"] > RunFolder(trained).card()["metrics"]["top1"] - 0.02
    assert card["model"].endswith("nets.py:net")
    main(["evaluate", str(compressed)])
    shown = capsys.readouterr().out
    assert f"{card['metrics']['top1']:.4f}" in shown
    assert "agreement" in shown


def test_what_was_compressed_goes_on_as_a_teacher_and_as_a_model_to_compress(trained, compressed, tmp_path):
    net = f"{trained.parent}/nets.py:net"
    few = (*DATA, *FEW, "--images", "64", "--epochs", "1", "--size", "8")
    models = ("--teacher", str(compressed), "--student", net)
    main(["distill", "classification", *few, *models, "--out", str(tmp_path / "distilled")])
    assert RunFolder(tmp_path / "distilled").is_finished()
    again = ("--ratio", "0.3", "--slice-epochs", "0", "--sample", "128")
    file = str(compressed / "student.safetensors")
    main(["compress", "classification", file, *DATA, *FEW, *again, "--out", str(tmp_path / "again")])
    predictor = limbeck.load(tmp_path / "again")
    assert predictor.predict(torch.zeros(3, 8, 8, dtype=torch.uint8))["probabilities"].shape == (10,)


def test_a_compressed_network_loads_without_limbeck_and_by_its_own_function(trained, compressed):
    makes = importlib.util.spec_from_file_location("nets", trained.parent / "nets.py")
    nets = importlib.util.module_from_spec(makes)
    makes.loader.exec_module(nets)
    assert "limbeck" not in (compressed / "load.py").read_text().split('"""')[2].replace('["limbeck"]', "")
    spec = importlib.util.spec_from_file_location("loader", compressed / "load.py")
    loader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loader)
    x = torch.randn(2, 3, 8, 8)
    plain, ours = loader.load(nets.net(10)), limbeck.load_compressed(nets.net(10), compressed).eval()
    assert torch.equal(plain(x), ours(x))
    with pytest.raises(ValueError, match="is not compressed"):
        limbeck.load_compressed(nets.net(10), trained)
    with pytest.raises(ValueError, match=r"Linear is not what .*compressed was compressed from"):
        limbeck.load_compressed(torch.nn.Linear(2, 2), compressed)


def test_the_whole_model_learns_after_its_slices_and_the_papers_are_cited(trained, tmp_path, capsys):
    few = (*DATA, *FEW, "--images", "320", "--ratio", "0.8", "--global-epochs", "2")
    main(["compress", "classification", str(trained), *few, "--out", str(tmp_path / "run")])
    run = RunFolder(tmp_path / "run")
    assert run.is_finished()
    assert run.card()["compressed"]
    sliced = weights(run.path, "sliced.safetensors")
    assert not equal(sliced, weights(run.path))
    shown = capsys.readouterr().out
    assert "KD:output" in shown
    assert "compressed │" in shown
    main(["cite", str(run)])
    cited = capsys.readouterr().out
    assert "2605.19842" in cited
    assert "1503.02531" in cited
    main(["compress", str(run), "--resume"])
    assert "is finished already" in capsys.readouterr().out


def test_a_killed_compression_resumes_bitwise(trained, tmp_path):
    words = ("--ratio", "0.7", "--images", "320", "--slice-epochs", "2", "--checkpoint-every", "3", "--sample", "96")
    start = ["compress", "classification", str(trained), *DATA, *FEW, *words]
    broken, unbroken = run_broken_and_unbroken(start, tmp_path, kill_after=(3, 12), checkpoints="slices")
    assert equal(weights(broken), weights(unbroken))
    assert read_card(broken / "student.safetensors") == read_card(unbroken / "student.safetensors")
    errors = [(run / "slices" / "errors.jsonl").read_text() for run in (broken, unbroken)]
    assert errors[0] == errors[1]
    assert errors[0].count("epoch") == 2


def test_mistakes_are_told_in_one_line(trained, compressed, tmp_path, capsys):
    words = ["compress", "classification", str(trained), *DATA, *FEW, "--out", str(tmp_path / "run")]
    assert "0.9999 is out of reach: " in mistake([*words, "--ratio", "0.9999"], capsys)
    assert "ratio is 2; it must be above 0, and below 1" in mistake([*words, "--ratio", "2"], capsys)
    assert "did you mean --ratio?" in mistake([*words, "--rato", "0.5"], capsys)
    nets = f"{trained.parent}/nets.py"
    assert "has no trained weights" in mistake([*words[:2], f"{nets}:net", *words[3:], "--size", "8"], capsys)
    assert not (tmp_path / "run").exists()
    assert "holds a run already" in mistake([*words[:-1], str(compressed)], capsys)
    other = ["compress", str(compressed), "--resume", "--ratio", "0.6"]
    assert "started with other --ratio (was 0.5, is 0.6)" in mistake(other, capsys)
    assert "is a run of limbeck train: go on with limbeck train" in mistake(
        ["compress", str(trained), "--resume"], capsys
    )
    damaged = tmp_path / "damaged" / "recipe.json"
    damaged.parent.mkdir()
    for lacking in ("argv", "arguments"):
        record = json.loads((compressed / "recipe.json").read_text())
        del record[lacking]
        damaged.write_text(json.dumps(record))
        said = mistake(["compress", str(damaged.parent), "--resume"], capsys)
        assert f"{damaged} is damaged: it has no '{lacking}'" in said
    with pytest.raises(SystemExit, match="0"):
        main(["compress", str(compressed), "--help"])
    assert "limbeck compress takes a task" in mistake(["compress", "clasification", str(trained)], capsys)
    assert "name the model" in mistake(["compress", "classification", "--data", "digits"], capsys)
    assert "go on with limbeck compress" in mistake(["distill", str(compressed), "--resume"], capsys)


def test_several_ratios_are_a_run_each_and_a_curve(trained, tmp_path, capsys):
    out = tmp_path / "curve"
    command = ["compress", "classification", str(trained), *DATA, *FEW, "--sample", "256", "--slice-epochs", "0"]
    main([*command, "--ratio", "0.3", "0.6", "--out", str(out)])
    rows = json.loads((out / "curve.json").read_text())
    assert [row["model"] for row in rows] == ["original", "0.3", "0.6"]
    parameters = [row["parameters"] for row in rows]
    assert 0.6 * parameters[0] < parameters[1] <= 0.7 * parameters[0]
    assert 0.3 * parameters[0] < parameters[2] <= 0.4 * parameters[0]
    assert rows[1]["top1"] == pytest.approx(RunFolder(out / "ratio-0.3").card()["metrics"]["top1"])
    assert (out / "curve.svg").read_text().startswith("<svg")
    assert all(row["peak memory of one image, MB"] > 4e-6 * row["parameters"] for row in rows)
    shown = capsys.readouterr().out
    assert shown.count("original") > 2
    assert shown.count("moments of what") == 1
    main([*command, "--ratio", "0.6", "--out", str(tmp_path / "alone")])
    assert equal(weights(tmp_path / "alone"), weights(out / "ratio-0.6"))
    assert "name the folder that takes them" in mistake([*command, "--ratio", "0.3", "0.6"], capsys)
