import io
import sys

import pytest

from limbeck.data.progress import is_terminal, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_pass_and_a_bar_is_shown_on_a_terminal_by_the_first_process_only(monkeypatch):
    for rank, screen, shown in (("0", Terminal(), True), ("1", Terminal(), False), ("0", io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("RANK", rank)
        assert list(track(iter("abc"), "checking images", 3)) == list("abc")
        assert ("checking images" in screen.getvalue()) == shown


class Log:
    """What programs put in the place of sys.stdout, to write to a file too."""

    def write(self, text):
        pass


@pytest.mark.parametrize("screen", [None, Log()])
def test_a_file_that_cannot_tell_is_no_terminal(monkeypatch, screen):
    monkeypatch.setattr(sys, "stderr", screen)
    assert not is_terminal(screen)
    assert list(track(iter("abc"), "checking images", 3)) == list("abc")
