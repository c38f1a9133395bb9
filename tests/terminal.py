"""A pseudo terminal for tests: what a person sees while a command runs, and at its end."""

import fcntl
import multiprocessing
import os
import pty
import select
import struct
import termios
import time
from dataclasses import dataclass, field

import pyte
import torch

from limbeck.cli import main

ROWS = 50
CLEAR = "\x1b[2J\x1b[H"
FOLDER = os.getcwd()


@dataclass
class Terminal:
    """A terminal of so many columns, in which one function runs.

    Args:
        columns: Characters in a line.
        environment: Variables, as TERM for the kind of terminal that it says it is.
    """

    columns: int
    environment: dict[str, str] = field(default_factory=dict)
    screens: list[str] = field(default_factory=list)  # every state of the screen that was seen, the last one last
    raw: bytes = b""  # all that was written
    status: int | None = None

    @property
    def last(self) -> str:
        return self.screens[-1]

    def run(self, function, *arguments):
        """Run a function in a process of its own whose terminal this is; give this terminal, for what it shows."""
        controller, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, self.columns, 0, 0))
        environment = {"TERM": "xterm-256color", **self.environment}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["limbeck.commands.run", "timm", "torchmetrics", "sklearn.datasets", __name__])
        process = context.Process(target=_attached, args=(os.ttyname(terminal), environment, function, arguments))
        process.start()
        screen = pyte.Screen(self.columns, ROWS)
        stream = pyte.ByteStream(screen)
        while process.is_alive() or select.select([controller], [], [], 0)[0]:
            if select.select([controller], [], [], 0.02)[0]:
                read = os.read(controller, 65536)
                self.raw += read
                stream.feed(read)
                self.screens.append(_shown(screen))
        process.join()
        self.status = process.exitcode
        os.close(terminal)
        os.close(controller)
        return self

    def limbeck(self, *arguments):
        return self.run(main, list(map(str, arguments)))

    def last_of_each(self):
        """The last screens before each was cleared, and the last of all."""
        screens = []
        for part in self.raw.split(CLEAR.encode()):
            screen = pyte.Screen(self.columns, ROWS)
            pyte.ByteStream(screen).feed(part)
            screens.append(_shown(screen))
        return screens


def _shown(screen):
    return "\n".join(line.rstrip() for line in screen.display).strip("\n")


def _attached(terminal, environment, function, arguments):
    """Make a terminal that of this process, as a login does."""
    os.setsid()
    descriptor = os.open(terminal, os.O_RDWR)
    for standard in range(3):
        os.dup2(descriptor, standard)
    os.environ.pop("COLUMNS", None)
    os.environ.update(environment)
    os.chdir(FOLDER)
    torch.set_num_threads(1)
    try:
        function(*arguments)
    finally:
        time.sleep(0.1)  # whoever watches is to see the last screen, too
