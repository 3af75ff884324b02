"""Weights of verifiers: found in ComfyUI's model folders, read without running anything, held in its model patchers."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import comfy.model_management as mm
import comfy.model_patcher
import folder_paths
import safetensors.torch
import torch
from torch import Tensor, nn

from .torch_files import Unreadable, read_torch_file

FOLDER = "verifiers"
CONFIG = "config.json"
NOTHING = "none"
CONTROL_CODES = re.compile("\033\\[[\\d;]*[a-zA-Z]|[\0-\x09\x0b-\x0c\x0e-\x1f\x7f]")  # line ends stay


def register_folder(name: str, ours: bool) -> None:
    """Tell ComfyUI of a folder in models/; paths that a user or other packs gave the name stay.

    Args:
        name: the folder.
        ours: that it lists weights only; else it lists what whoever named it first said.
    """
    paths, extensions = folder_paths.folder_names_and_paths.get(name, ([], None))
    if ours or extensions is None:
        extensions = set(folder_paths.supported_pt_extensions)
    own = os.path.join(folder_paths.models_dir, name)
    folder_paths.folder_names_and_paths[name] = (list(dict.fromkeys([*paths, own])), extensions)


register_folder(FOLDER, ours=True)


@dataclass(frozen=True)
class Wanted:
    """What a node looks for, for its messages.

    Attributes:
        node: the node's display name, without "(verifier)".
        input: the id of the input that names it.
        folders: model folders it may be in, the usual one first.
        source: file or repository, and where it is published.
    """

    node: str
    input: str
    folders: tuple[str, ...]
    source: str

    def refused(self, name: str, why: str) -> ValueError:
        """Return an error about what was chosen."""
        return ValueError(f"{self.node}: input '{self.input}' is {name!r}, {why}. The usual one: {self.source}.")


def files(wanted: Wanted) -> list[str]:
    """Return the names of the weight files in the folders, for a combo; one entry saying so if there is none."""
    names = {name: None for folder in wanted.folders for name in folder_paths.get_filename_list(folder)}
    return list(names) or [NOTHING]


def repositories(wanted: Wanted) -> list[str]:
    """Return the names of the folders in the folders that hold a Hugging Face model, for a combo."""
    return sorted(_repositories(wanted)) or [NOTHING]


def file_path(wanted: Wanted, name: str) -> str:
    """Return the path of a weight file.

    Raises:
        ValueError: it is not in the folders; says which, and where the file is published.
    """
    for folder in wanted.folders:
        if name in folder_paths.get_filename_list(folder):
            return folder_paths.get_full_path_or_raise(folder, name)
    raise wanted.refused(name, f"a file that is not in {_places(wanted)}")


def repository_path(wanted: Wanted, name: str) -> str:
    """Return the path of a folder with a Hugging Face model, likewise."""
    path = _repositories(wanted).get(name)
    if path is None:
        raise wanted.refused(name, f"a folder with a {CONFIG} that is not in {_places(wanted)}")
    return path


def found(find: Callable[[Wanted, str], str], wanted: Wanted, name: Any) -> bool | str:
    """Return True, or what a node's `validate_inputs` says of a name that is not there.

    ComfyUI's own check of a list only says that the value is not in it: neither the folder nor where the file is published.
    """
    if isinstance(name, str):  # not connected
        try:
            find(wanted, name)
        except ValueError as error:
            return str(error)
    return True


def said(error: BaseException) -> str:
    """Return an error's first line without control codes, cut to 200 characters."""
    lines = CONTROL_CODES.sub("", str(error)).strip().splitlines()
    return (lines or [type(error).__name__])[0][:200]


def _repositories(wanted: Wanted) -> dict[str, str]:
    """Return the paths of the folders that hold a Hugging Face model, by name; the first of a name counts."""
    paths: dict[str, str] = {}
    for root in (root for folder in wanted.folders for root in folder_paths.get_folder_paths(folder)):
        for at, inside, found in os.walk(root, followlinks=True):  # as ComfyUI lists files
            if CONFIG in found and at != root:
                paths.setdefault(os.path.relpath(at, root).replace(os.sep, "/"), at)
                inside.clear()
    return paths


def _places(wanted: Wanted) -> str:
    return " or ".join(f"models/{folder} ({', '.join(folder_paths.get_folder_paths(folder))})" for folder in wanted.folders)


def read_weights(wanted: Wanted, name: str, path: str) -> dict[str, Tensor]:
    """Read a safetensors or torch file; nothing in it is run.

    Returns:
        Its tensors by name; those under "state_dict", "model" or "module" where a file nests them.

    Raises:
        ValueError: it is truncated, not of its kind, or holds something else than tensors.
    """
    try:
        if path.lower().endswith((".safetensors", ".sft")):
            return safetensors.torch.load_file(path)
        found = read_torch_file(path, os.path.splitext(os.path.basename(path))[0])
    except Unreadable as error:
        raise wanted.refused(name, str(error)) from error
    except Exception as error:
        raise wanted.refused(
            name, f"a file that cannot be read as weights (damaged, or not what its name says): {said(error)}"
        ) from error
    for nest in ("state_dict", "model", "module"):
        if isinstance(found, dict) and isinstance(found.get(nest), dict):
            found = found[nest]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise wanted.refused(name, "a file that holds something else than named tensors")
    return found


def below(sd: dict[str, Tensor], *marks: str) -> dict[str, Tensor]:
    """Return weights under their own names, where all of a model's stand below one: "module.", "model.", "_orig_mod.".

    Args:
        sd: the weights.
        marks: names of which a model has one.
    """
    for mark in marks:
        before = {key[: -len(mark)] for key in sd if key == mark or key.endswith(f".{mark}")}
        if len(before) == 1 and before != {""}:
            (prefix,) = before
            return {key[len(prefix) :]: value for key, value in sd.items() if key.startswith(prefix)}
    return sd


def check_keys(wanted: Wanted, name: str, sd: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise a ValueError unless the weights have what a module expects, by names and shapes; more is let through."""
    missing = [key for key in shapes if key not in sd]
    other = [f"{key} {tuple(sd[key].shape)} in place of {tuple(shapes[key])}" for key in shapes
             if key in sd and tuple(sd[key].shape) != tuple(shapes[key])]  # fmt: skip
    if missing or other:
        shown = "; ".join([*(f"{key} is missing" for key in missing), *other][:4])
        raise wanted.refused(name, f"weights of another model ({shown})")


class HeldModel:
    """A module in a model patcher of ComfyUI's: loaded while it works, evicted when memory is wanted.

    Attributes:
        patcher: for ComfyUI's tracking; a verifier shows it by `get_models()`.
        dtype: of the weights; inputs that are floating point are cast to it.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype | None = None) -> None:
        """Hold a module.

        Args:
            module: as a child of a plain module, since the patcher sets attributes that some models protect.
            dtype: None for half precision where the device is good at it, else float32.
        """
        device = mm.get_torch_device()
        if dtype is None:
            dtype = torch.float16 if mm.should_use_fp16(device, prioritize_performance=False) else torch.float32
        self.dtype = dtype
        self.module = module.eval().requires_grad_(False).to(dtype)
        holder = nn.Module()
        holder.child = self.module
        patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)  # newer: rebound at start
        self.patcher = patcher(holder, load_device=device, offload_device=mm.unet_offload_device())

    def __call__(self, work: Callable[[nn.Module, torch.device], Any], memory: float = 0.0) -> Any:
        """Load the module and let it work.

        Args:
            work: given the module and the device it is on; returns what the call returns.
            memory: bytes that the work needs beside the weights.

        Raises:
            InterruptProcessingException: the user cancelled.
        """
        mm.throw_exception_if_processing_interrupted()  # each slice, picture or question comes by here
        # Whole: parameters outside of leaf modules are left behind by a partial load.
        mm.load_models_gpu([self.patcher], memory_required=math.ceil(memory), force_full_load=True)
        return work(self.module, self.patcher.load_device)


_held: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()


def held(kind: str, path: str, build: Callable[[], Any]) -> Any:
    """Return what was built from a file, or build it: nodes that name the same file share it while one of them lives.

    Args:
        kind: what is built of it.
        path: a file, or a folder (told by its config.json).
        build: makes it.
    """
    stat = os.stat(os.path.join(path, CONFIG) if os.path.isdir(path) else path)
    key = (kind, os.path.realpath(path), stat.st_mtime_ns, stat.st_size)
    found = _held.get(key)
    if found is None:
        _held[key] = found = build()
    return found
