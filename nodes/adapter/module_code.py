"""Foreign code on the modules of a model, below what its patcher knows of: replaced methods and hooks."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from pathlib import Path
from typing import Any

import comfy.samplers
import torch
from torch.nn.modules import module as torch_module

COMFYUI = Path(inspect.getfile(comfy.samplers)).resolve().parent.parent
FOLDERS = (COMFYUI / "comfy", COMFYUI / "comfy_extras", COMFYUI / "comfy_api", Path(torch.__file__).resolve().parent)
STANDARD_LIBRARY = Path(contextlib.__file__).resolve().parent
# They compute no answer; transformers adds the latter to torch's Module when it initializes a model.
ASIDE = {"memory_required", "smart_apply"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def foreign_code(model: torch.nn.Module) -> list[str]:
    """Name the foreign code on a model's modules, in words.

    That are methods that were replaced on a module or, process-wide, on its class, and forward hooks. Code of ComfyUI and of
    torch, and what is written where the class itself is, counts as the module's own.
    """
    found = [f"a forward hook on all modules ({_file_name(hook)})" for hook in _foreign_hooks(torch_module, "_global")]
    for path, module in model.named_modules():
        cls, where = type(module), f" of '{path}'" if path else ""
        found += [f"{cls.__qualname__}.{name}{where} is replaced" for name in _replaced_on(module)]
        found += [f"a forward hook on {cls.__qualname__}{where} ({_file_name(hook)})" for hook in _foreign_hooks(module)]
    classes = {cls for module in model.modules() for cls in type(module).__mro__ if cls is not object}
    return found + [f"{cls.__qualname__}.{name} is replaced" for cls in sorted(classes, key=str) for name in _replaced_in(cls)]


def _replaced_on(module: torch.nn.Module) -> list[str]:
    """Name the methods of its class that a module has foreign ones in place of."""
    cls = type(module)
    methods = {name: value for name, value in vars(module).items() if callable(value) and callable(getattr(cls, name, None))}
    return [name for name, value in methods.items() if name not in ASIDE and not _is_own(value, cls)]


def _replaced_in(cls: type) -> list[str]:
    """Name the methods of a class that were written elsewhere; those that Python generates aside."""
    return [name for name, value in vars(cls).items()
            if callable(value) and not isinstance(value, type) and name not in ASIDE
            and (not name.startswith("__") or name == "__call__") and not _is_own(value, cls)]  # fmt: skip


def _is_own(function: Any, cls: type) -> bool:
    """Whether a method, and what it wraps if anything, was written with its class, in ComfyUI or in torch."""
    while function is not None:
        while isinstance(function, functools.partial):
            function = function.func
        function = getattr(function, "__func__", function)
        file = _file(function)
        if file != _file_of_class(cls) and not _is_known(file):
            return False
        function = getattr(function, "__wrapped__", None)
    return True


def _foreign_hooks(thing: Any, prefix: str = "") -> list[Any]:
    hooks = [hook for name in HOOKS for hook in getattr(thing, prefix + name).values()]
    return [hook for hook in hooks if not _is_own(hook, type(hook))]


def _file(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return _file_of_class(type(function)) if code is None else code.co_filename


def _file_name(function: Any) -> str:
    return Path(_file(getattr(function, "__func__", function))).name


@functools.lru_cache(maxsize=4096)
def _is_known(file: str) -> bool:
    path = Path(file).resolve()
    return path.parent == STANDARD_LIBRARY or any(path.is_relative_to(folder) for folder in FOLDERS)


def _file_of_class(cls: type) -> str:
    return getattr(sys.modules.get(cls.__module__), "__file__", "") or ""
