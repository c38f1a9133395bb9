"""The command line: ``limbeck COMMAND``, of which there is one module each in ``limbeck.commands``."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext
from difflib import get_close_matches
from importlib import import_module

from limbeck.commands.help_alone import asks_for_help_alone, without_torch
from limbeck.commands.light_imports import without_collecting

OVERVIEW = """\
limbeck makes a small vision model learn from a big one.

  limbeck train classification --data DIR --model MODEL --out RUN
      a model alone: to make a teacher, or the baseline for a student
  limbeck distill classification --data DIR --teacher MODEL --student MODEL
          --out RUN
      a student beside a teacher (MODEL: timm:NAME, torchvision:NAME,
      FILE.py:FUNCTION or a run folder)
  limbeck train|distill semantic ...
      the same for semantic segmentation (MODEL: also smp:ARCH/ENCODER,
      hf:FOLDER)
  limbeck train|distill detection|instance ...
      the same for object detection and instance segmentation (MODEL:
      torchvision:HEAD/timm:BACKBONE, hf:FOLDER)
  limbeck distill FILE.py ... --out RUN
      a recipe of your own: the function in FILE.py that is named like
      the file (or FILE.py:FUNCTION)
  limbeck train|distill|compress RUN --resume
      go on with a run of this command that was stopped or killed
  limbeck compress TASK MODEL --data DIR --ratio 0.5 --out RUN
      a trained model made smaller: its layers become factors, which
      learn slice by slice to do what the layers did
  limbeck evaluate RUN --data DIR
      the student of a run, beside its teacher and beside other runs;
      --pictures N draws what segmenters and detectors say
  limbeck report RUN [RUN ...]
      one page about runs, to be opened in a browser: what was gained,
      curves, features, classes, cost
  limbeck predict RUN IMAGES --out DIR
      what the student of a run says of images, as json, masks and pictures
  limbeck export RUN student.onnx
      the student of a run as .onnx, .pt2 or .xml (OpenVINO), written
      only where it gives what the student gives
  limbeck layers MODEL --size 224
      every layer of a model, with its feature's shape and stride
  limbeck methods
      every method that distill --method takes, with its paper, its
      layers and its weight
  limbeck cite RUN
      the BibTeX of the methods that a run used
  limbeck demo
      a teacher, a student alone and a distilled student on embedded
      digits, in three minutes

Each command explains its options: limbeck distill classification --help"""


# Module and function of each; only the one that is typed is imported, since that takes seconds.
COMMANDS = {
    "distill": "run:distill",
    "train": "run:train",
    "compress": "compress:compress",
    "evaluate": "evaluate:evaluate",
    "predict": "predict:predict",
    "export": "export:export",
    "layers": "layers:layers",
    "methods": "methods:methods",
    "cite": "methods:cite",
    "report": "report:report",
    "demo": "demo:command",
}


OF_RUNS = ("distill", "train", "compress")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; mistakes of the user end with one line on stderr and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(OVERVIEW)
        return
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("limbeck"))
        return
    try:
        if arguments[0] not in COMMANDS:
            nearest = get_close_matches(arguments[0], COMMANDS, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise ValueError(f"no command {arguments[0]!r}; {hint}there are {', '.join(COMMANDS)}")
        with without_torch() if asks_for_help_alone(arguments) else nullcontext():
            _command(arguments[0])(arguments[1:])
    except KeyboardInterrupt as interrupt:
        goes_on = "; a run goes on from its last checkpoint with --resume" if arguments[0] in OF_RUNS else ""
        print("; ".join([f"limbeck: interrupted{goes_on}", *getattr(interrupt, "__notes__", ())]), file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader, such as head, had enough
        sys.stderr.close()
    except (ValueError, FloatingPointError, OSError) as error:
        print("; ".join([f"limbeck: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        raise SystemExit(2) from error
    finally:
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)  # Ctrl-C then ends it without a traceback
        atexit.register(gc.freeze)  # it need not look for garbage among all that torch made, which takes half a second


def _command(name: str) -> Callable[[list[str]], None]:
    module, _, function = COMMANDS[name].partition(":")
    with without_collecting():
        command: Callable[[list[str]], None] = getattr(import_module(f"limbeck.commands.{module}"), function)
    return command
