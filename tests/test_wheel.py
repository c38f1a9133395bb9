"""The README's commands, from a wheel, as someone runs them who has nothing else: no git, no home, spaces in paths."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from PIL import Image

from tests.places import ROOT

COMMANDS = re.findall(r"^    (limbeck .*?)(?:\s+#.*)?$", (ROOT / "README.md").read_text(), re.MULTILINE)
SHORT = "--size 32 --epochs 1 --batch-size 8 --workers 0"
SMALLER = {  # what cannot be downloaded, or would take long
    "--model timm:resnet50 --weights pretrained": f"--model timm:test_resnet {SHORT}",
    "--model timm:mobilenetv3_small_100": f"--model timm:test_efficientnet {SHORT}",
    "--ratio 0.5": "--ratio 0.5 --batch-size 8 --slice-epochs 1 --start weights --no-teacher-check",
    "--student timm:mobilenetv3_small_100": f"--student timm:test_efficientnet --no-teacher-check {SHORT}",
}


@pytest.fixture(scope="module")
def limbeck(tmp_path_factory):
    """The command of an environment that has the wheel, and its dependencies from this one."""
    folder = tmp_path_factory.mktemp("a wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    python = folder / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    # As a path only: what this environment links to, limbeck itself, is not followed from there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env" / "bin" / "limbeck"


@pytest.fixture
def place(tmp_path):
    """A folder with images of two classes, and photos."""
    place = tmp_path / "my work"
    for part, count in (("train", 8), ("val", 4)):
        for label, shade in (("dark", 40), ("light", 200)):
            (place / "DIR" / part / label).mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (40, 32), (shade + number, shade, shade))
                image.save(place / "DIR" / part / label / f"{number}.jpg")
    (place / "photos").mkdir()
    for name in ("photo.jpg", "photos/one.jpg"):
        Image.new("RGB", (50, 40), (200, 200, 200)).save(place / name)
    return place


def test_the_readmes_commands_run_one_after_another(limbeck, place):
    assert len(COMMANDS) >= 8
    environment = {"PATH": str(limbeck.parent), "HOME": "/nowhere", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    shown = {}
    for command in COMMANDS:
        given = command
        for words, smaller in SMALLER.items():
            given = given.replace(words, smaller)
        ran = subprocess.run(given.split(), cwd=place, env=environment, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, f"{given}\n{ran.stdout}{ran.stderr}"
        assert "Warning" not in ran.stderr
        shown[command.split()[1]] = ran.stdout
    assert (place / "runs" / "a" / "student-last.safetensors").is_file()
    assert "runs/alone" in shown["evaluate"]
    assert (place / "predictions" / "predictions.json").is_file()
    assert "layer4" in shown["layers"]
    assert "2303.13212" in shown["cite"]


def test_the_wheel_is_found_and_not_what_lies_here(limbeck):
    code = "import limbeck; print(limbeck.__file__)"
    python = limbeck.parent / "python"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd=os.sep, env={})
    assert Path(found.stdout).is_relative_to(limbeck.parents[1])
