"""Type errors of a checkout's product code, as basedpyright finds them in its standard mode."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from source import LAYERS, ROOT


def type_errors(root: Path) -> list[str] | None:
    """Return the type errors of a checkout, "path:line: message (rule)"; None where basedpyright is not installed.

    The settings are the same for every checkout, so that two can be compared.
    """
    checker = shutil.which("basedpyright", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if checker is None:
        return None
    comfyui = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI").resolve()
    settings = {
        "include": [str(root / layer) for layer in LAYERS], "extraPaths": [str(comfyui)], "typeCheckingMode": "standard",
        "pythonVersion": "3.10", "reportMissingImports": "none", "reportMissingModuleSource": "none",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "pyrightconfig.json"
        project.write_text(json.dumps(settings), encoding="utf-8")
        command = [checker, "--project", str(project), "--pythonpath", sys.executable, "--level", "error", "--outputjson"]
        said = subprocess.run(command, capture_output=True, check=False, text=True)
    found = json.loads(said.stdout)["generalDiagnostics"]
    return [
        f"{Path(error['file']).relative_to(root)}:{error['range']['start']['line'] + 1}: "
        f"{' '.join(error['message'].split())} ({error.get('rule', 'syntax')})"
        for error in found
    ]
