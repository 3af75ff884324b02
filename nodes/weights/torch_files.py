"""torch's own files of weights, read without running anything that is in them."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

# Packages whose objects training programs leave beside the weights; nothing of theirs is imported or run.
TRAINERS = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf", "argparse", "pathlib")
# Files of OpenAI's CLIP, which are TorchScript, and where the same weights are published alone.
OPENAI = {
    "ViT-B-32": "openai/clip-vit-base-patch32",
    "ViT-B-16": "openai/clip-vit-base-patch16",
    "ViT-L-14": "openai/clip-vit-large-patch14",
    "ViT-L-14-336px": "openai/clip-vit-large-patch14-336",
}


class Unreadable(Exception):
    """A file that cannot be read; says why, as "a file that ..."."""


class Inert:
    """Stands for a class of a training program: what was made of it is read as settings that nobody looks at."""

    def __new__(cls, *_: Any, **__: Any) -> OrderedDict[Any, Any]:  # torch fills in nothing but dicts
        """Return an empty dict, whatever the object was made from."""
        return OrderedDict()


def read_torch_file(path: str, stem: str) -> Any:
    """Read a file that `torch.save` wrote.

    Args:
        path: the file.
        stem: its name without its ending, which tells OpenAI's own files.

    Returns:
        What it holds: tensors, numbers, texts, and dicts and lists of them.

    Raises:
        Unreadable: it is a program, holds objects of programs, or is damaged.
    """
    if _is_torchscript(path):
        same = f"model.safetensors of https://huggingface.co/{OPENAI[stem]}" if stem in OPENAI else "a file of its weights alone"
        raise Unreadable(f"a file that holds a program (TorchScript), which is not run; in its place take {same}")
    try:
        with _inert(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own words advise to run what is in the file
        raise Unreadable(
            "a file that cannot be read as weights (it is damaged, is not what its name says, or holds objects of a program"
            " beside tensors, which are not loaded)"
        ) from error


def _is_torchscript(path: str) -> bool:
    """Whether a file is a compiled program, by the folder of code in its archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def _inert(path: str) -> AbstractContextManager[Any]:
    """Let objects of training programs be read as `Inert` does; torch refuses others."""
    if not zipfile.is_zipfile(path) or not hasattr(torch.serialization, "get_unsafe_globals_in_checkpoint"):
        return nullcontext()
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    ours = [name.rpartition(".") for name in names if name.split(".")[0] in TRAINERS]
    return torch.serialization.safe_globals([type(kind, (Inert,), {"__module__": module}) for module, _, kind in ours])
