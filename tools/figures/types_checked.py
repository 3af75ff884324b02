"""Type errors of a checkout's product code, as basedpyright finds them in its standard mode.

One kind is left out: that the `execute` and `validate_inputs` of a node take its inputs, where those of ComfyUI's `ComfyNode`
take any. ComfyUI wants it so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from source import LAYERS, ROOT

COMFY_NODE = 'overrides class "ComfyNode" in an incompatible manner'


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
    found = [error for error in json.loads(said.stdout)["generalDiagnostics"] if COMFY_NODE not in error["message"]]
    return [
        f"{Path(error['file']).relative_to(root)}:{error['range']['start']['line'] + 1}: "
        f"{' '.join(error['message'].split())} ({error.get('rule', 'syntax')})"
        for error in found
    ]
