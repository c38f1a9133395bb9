import pytest
import torch
from safetensors.torch import save_file

from limbeck.commands.record import arguments_of
from limbeck.models.run_folder import MARK, RunFolder


@pytest.mark.parametrize(
    ("content", "reason"),
    [("[]", "it holds no object but: list"), ("1", "it holds no object but: int"), ('{"a"', "delimiter")],
)
def test_a_record_or_card_of_another_form_is_told_by_its_file(tmp_path, content, reason):
    run = RunFolder(tmp_path)
    run.record.write_text(content)
    save_file({"weight": torch.ones(1)}, run.student, {"limbeck": content})
    with pytest.raises(ValueError, match=rf"recipe.json is damaged \(.*{reason}"):
        run.read_record()
    with pytest.raises(ValueError, match=rf"the card in .*student.safetensors is damaged: .*{reason}"):
        run.card()


def test_a_record_that_python_wrote_need_not_have_arguments(tmp_path):
    RunFolder(tmp_path).record.write_text('{"seed": 1}')
    assert arguments_of(RunFolder(tmp_path)) == {}


@pytest.mark.parametrize("of_others", [False, True])
def test_a_folder_is_cleared_of_what_a_run_wrote_alone(tmp_path, of_others):
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    for path in (folder.student, folder.last_student, folder.first_batch, folder.checkpoints / "step-1.ckpt"):
        path.touch()
    folder.readme.write_bytes("mine, by Ren\xe9".encode("latin-1") if of_others else f"---\n{MARK}".encode())
    (tmp_path / "notes.txt").touch()
    folder.clear()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"checkpoints", "notes.txt", *(["README.md"] if of_others else [])}
