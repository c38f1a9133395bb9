import torch
from safetensors.torch import save_file

from limbeck.cli import main
from limbeck.models.run_folder import read_card
from limbeck.tasks import task_kind
from tests.tasks.detection.test_commands import CLASSES, MODELS, SHORT, write_objects


def test_an_instance_segmenter_whose_regions_change_is_compressed(tmp_path, capsys):
    (tmp_path / "detectors.py").write_text(MODELS)
    name, weights = f"{tmp_path}/detectors.py:masks", tmp_path / "weights.safetensors"
    torch.manual_seed(0)
    save_file(task_kind("instance").build(name, CLASSES).module.state_dict(), weights)
    words = ["--data", write_objects(tmp_path / "data"), *SHORT[:-2], "--weights", str(weights), "--no-teacher-check"]
    words += ["--ratio", "0.3", "--keep", "roi_heads.box_head.fc6"]  # for which these images are too few
    main(["compress", "instance", name, *words, "--out", str(tmp_path / "run")])
    card = read_card(tmp_path / "run" / "student.safetensors")
    assert any(path.startswith("roi_heads.") for path in card["compressed"])
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run")])
    assert f"{card['metrics']['mask_ap']:.4f}" in capsys.readouterr().out
