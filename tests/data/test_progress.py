import io
import sys

from limbeck.data.progress import track


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_items_pass_and_a_bar_is_shown_on_a_terminal_by_the_first_process_only(monkeypatch):
    for rank, screen, shown in (("0", Terminal(), True), ("1", Terminal(), False), ("0", io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("RANK", rank)
        assert list(track(iter("abc"), "checking images", 3)) == list("abc")
        assert ("checking images" in screen.getvalue()) == shown
