"""Model options as sampler runs see them: what one run changed in its own copy, and what runs may share.

ComfyUI hands every sampler run a clone of the guider's model options. A run may change its clone (the `*_cfg_pp`
samplers add a post-CFG function). Runs share a model call only if nothing but such per-run post-CFG functions
differs between them; those are then called with their own rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Options = dict[str, Any]
PostCfg = Callable[[dict[str, Any]], Tensor]
POST_CFG = "sampler_post_cfg_function"
_MISSING = object()


@dataclass(frozen=True)
class Change:
    """What one run changed in its own copy of the model options.

    Attributes:
        post_cfg: post-CFG functions the run appended, in order.
        entries: (path, value) of every other entry that is no longer the base's.
    """

    post_cfg: tuple[PostCfg, ...] = ()
    entries: tuple[tuple[tuple[str, ...], Any], ...] = field(default=())

    @property
    def key(self) -> tuple[tuple[tuple[str, ...], Hashable], ...]:
        """Equal for two runs exactly if their calls may be one call."""
        return tuple((path, identity(value)) for path, value in self.entries)


def clone_options(options: Options) -> Options:
    """Copy the nested dictionaries and lists of `options`; the leaves stay the same objects."""
    return {
        key: clone_options(value) if isinstance(value, dict) else value.copy() if isinstance(value, list) else value
        for key, value in options.items()
    }


def change_between(base: Options, options: Options) -> Change:
    """Return what turns `base` into `options`, entries compared by identity (plain numbers and text by value)."""
    base_post, post = base.get(POST_CFG, []), options.get(POST_CFG, [])
    appended = len(post) >= len(base_post) and all(a is b for a, b in zip(base_post, post, strict=False))
    skip = {POST_CFG} if appended else set()
    entries = tuple(_differences(base, options, (), skip))
    return Change(tuple(post[len(base_post) :]) if appended else (), entries)


def apply_changes(base: Options, changes: Sequence[Change], rows: Sequence[int]) -> Options:
    """Return `base` as changed for a call shared by several runs.

    Args:
        base: model options of the round.
        changes: one per run; their `key`s must be equal.
        rows: latent rows of each run, in the order of `changes`.
    """
    options = clone_options(base)
    for path, value in changes[0].entries:
        inner = options
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        if value is _MISSING:
            inner.pop(path[-1], None)
        else:
            inner[path[-1]] = value
    if any(change.post_cfg for change in changes):
        own = split_by_rows([change.post_cfg for change in changes], rows)
        options[POST_CFG] = [*options.get(POST_CFG, []), own]
    return options


def split_by_rows(functions: Sequence[Sequence[PostCfg]], rows: Sequence[int]) -> PostCfg:
    """Return one post-CFG function that gives every run's own functions that run's rows only."""

    def post_cfg(args: dict[str, Any]) -> Tensor:
        total, first, out = sum(rows), 0, []
        for fns, count in zip(functions, rows, strict=True):
            own = {key: rows_of(value, first, count, total) for key, value in args.items()}
            out.append(run_post_cfg(fns, own))
            first += count
        return torch.cat(out)

    return post_cfg


def run_post_cfg(functions: Sequence[PostCfg], args: dict[str, Any]) -> Tensor:
    """Call post-CFG functions one after the other, each on the previous one's result, as ComfyUI does."""
    args = dict(args)
    for fn in functions:
        args["denoised"] = fn(args)
    return args["denoised"]


def rows_of(value: Any, first: int, count: int, total: int) -> Any:
    """Return rows first .. first + count of a tensor with `total` rows; anything else unchanged."""
    if isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == total:
        return value[first : first + count]
    return value


def _differences(base: Options, options: Options, path: tuple[str, ...], skip: set[str]) -> list[tuple]:
    found = []
    touched = [key for key in {*base, *options} - skip if base.get(key, _MISSING) is not options.get(key, _MISSING)]
    for key in sorted(touched, key=str):
        old, new = base.get(key, _MISSING), options.get(key, _MISSING)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, (*path, key), set())
        elif identity(old) != identity(new):
            found.append(((*path, key), new))
    return found


class _Same:
    """A key that is equal for the same object only; it keeps the object, so that no later one gets its address."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def identity(value: Any) -> Hashable:
    """A key that is equal for the same object, for equal plain values, and for containers of such."""
    if isinstance(value, (bool, int, float, str, bytes, type(None))):
        return (type(value).__name__, value)
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, tuple(identity(v) for v in value))
    if isinstance(value, dict):
        return ("dict", tuple((key, identity(v)) for key, v in sorted(value.items(), key=lambda kv: str(kv[0]))))
    return _Same(value)
