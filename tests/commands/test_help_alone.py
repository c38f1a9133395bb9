import subprocess
import sys

import pytest

from limbeck.cli import main


def test_help_is_given_beside_a_word_longer_than_any_file_name(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["layers", "x" * 300, "--help"])
    assert not stop.value.code, capsys.readouterr().err
    assert "usage: limbeck layers" in capsys.readouterr().out


def test_help_leaves_nothing_of_its_stand_ins_to_a_command_in_the_same_process():
    script = (
        "from contextlib import suppress\nfrom limbeck.cli import main\n"
        "with suppress(SystemExit): main(['distill', 'classification', '--help'])\nmain(['methods'])"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "ChannelTransform" in ended.stdout
