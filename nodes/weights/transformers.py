"""Hugging Face folders: read by transformers' own classes, from this machine, from safetensors.

A folder comes from a stranger, and its config.json may ask for more than layers: for code of its own, for parts that the
package timm builds (which it may download, or read from pickles), for attention kernels from the hub (which are code), for
an adapter or quantization by other packages. What asks for those is refused; a wish for a kernel is not heard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .files import CONFIG, Wanted, said

WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR, ADAPTER = "preprocessor_config.json", "adapter_config.json"
OLDEST = "4.50"
ELSEWHERE = ("backbone", "use_timm_backbone", "use_pretrained_backbone")  # settings that name a network to be fetched
HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def import_transformers(wanted: Wanted) -> ModuleType:
    """Return the package transformers.

    Raises:
        ValueError: it is missing or too old.
    """
    try:
        import transformers
        from transformers import AutoModelForImageTextToText  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{wanted.node}: needs the package transformers, {OLDEST} or newer ({error}). Run: pip install -U transformers"
        ) from error
    return transformers


def read_settings(wanted: Wanted, name: str, path: str, file: str) -> dict[str, Any]:
    """Read one of a folder's JSON files.

    Args:
        wanted: for messages.
        name: the folder, as the node's input names it.
        path: the folder.
        file: the file's name.

    Raises:
        ValueError: it is missing, or holds no JSON object.
    """
    try:
        with open(os.path.join(path, file), encoding="utf-8") as opened:
            found = json.load(opened)
    except FileNotFoundError as error:
        raise wanted.refused(name, f"a folder without {file}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise wanted.refused(name, f"a folder whose {file} cannot be read: {said(error)}") from error
    if not isinstance(found, dict):
        raise wanted.refused(name, f"a folder whose {file} holds no settings, but a {type(found).__name__}")
    return found


def read_config(wanted: Wanted, name: str, path: str) -> Any:
    """Read a folder's config.json as transformers' config.

    Raises:
        ValueError: it cannot be used, or asks for what only other packages, the hub or code of its own give.
    """
    transformers = import_transformers(wanted)
    settings = read_settings(wanted, name, path, CONFIG)
    if os.path.exists(os.path.join(path, ADAPTER)):
        raise wanted.refused(name, f"a folder with {ADAPTER}, so an adapter of another model; take a whole model")
    if any(part.get(key) for part in _objects(settings) for key in ELSEWHERE):
        raise wanted.refused(name, f"a folder whose {CONFIG} names a backbone to be fetched; nothing is downloaded")
    try:
        config = transformers.AutoConfig.from_pretrained(path, **HERE)
    except Exception as error:
        raise wanted.refused(
            name,
            f"a folder whose {CONFIG} transformers {transformers.__version__} cannot use ({said(error)}). If the model is newer"
            " than that: pip install -U transformers; models that bring code of their own are not run",
        ) from error
    if getattr(config, "quantization_config", None) is not None:
        raise wanted.refused(name, "a quantized model, which cannot be held in memory as others are; take the unquantized one")
    if any("Timm" in kind.__name__ for part in _parts(config, transformers.PretrainedConfig) for kind in type(part).__mro__):
        raise wanted.refused(name, "a model built by the package timm, which may download parts or read pickles")
    config._attn_implementation = None  # transformers' choice; the name of a repository would be fetched and run
    return config


def read_model(wanted: Wanted, name: str, load: Callable[..., Any], path: str | None, what: str, **how: Any) -> Any:
    """Load weights, and refuse what transformers would replace by random numbers.

    Args:
        wanted: for messages.
        name: the file or folder, as the node's input names it.
        load: a class's `from_pretrained`.
        path: the folder; None where `how` holds the weights.
        what: the kind of model, for messages.
        **how: more for `load`: a `config` of `read_config`.

    Raises:
        ValueError: weights are missing, damaged, pickled, or of another model.
    """
    if path is not None and not any(os.path.isfile(os.path.join(path, file)) for file in (WEIGHTS, SHARDS)):
        raise wanted.refused(name, f"a folder without {WEIGHTS} (weights in pickles are not read)")
    try:
        model, info = load(path, output_loading_info=True, use_safetensors=True, local_files_only=True, **how)
    except Exception as error:
        raise wanted.refused(name, f"weights that cannot be loaded as {what} (damaged, or of another): {said(error)}") from error
    missing = sorted({*info["missing_keys"], *(str(key) for key in info["mismatched_keys"])})
    if missing:
        shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise wanted.refused(name, f"weights of another model than {what}, or not all of them (missing: {shown})")
    return model


def load_processor(wanted: Wanted, name: str, path: str) -> Any:
    """Load what prepares pictures and texts for a folder's model.

    Raises:
        ValueError: its files are missing, damaged or of another model.
    """
    try:
        return import_transformers(wanted).AutoProcessor.from_pretrained(path, **HERE)
    except Exception as error:
        raise wanted.refused(name, f"a folder without a usable tokenizer and image processor: {said(error)}") from error


def _objects(settings: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in JSON settings, however deep."""
    waiting = [settings]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            yield found
        waiting += found.values() if isinstance(found, dict) else found if isinstance(found, list) else []


def _parts(config: Any, kind: type) -> Iterator[Any]:
    """Yield a config and every config in it."""
    waiting = [config]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += [value for value in vars(found).values() if isinstance(value, kind)]
