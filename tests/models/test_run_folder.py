import pytest

from limbeck.models.run_folder import MARK, RunFolder


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
