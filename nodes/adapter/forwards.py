"""What ComfyUI makes of a guided call: which parts of the conditioning go through the model together, and what is passed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor

PATCHES = ("patches", "patches_replace")


@contextmanager
def observed_forwards(guider: Any, rows: int) -> Iterator[list[Hashable]]:
    """Note the forwards of the guided calls made within, in order, each as a value that tells kinds of forwards apart.

    Rows are not part of it, where there are as many as in the call: two calls of different sizes may be of one kind.

    Args:
        guider: inside its `sample`.
        rows: latent rows of the call.
    """
    found: list[Hashable] = []
    models = [guider.inner_model, getattr(guider, "uncond_inner", None)]  # one of its own for the negative prompt
    with ExitStack() as observed:
        for model in dict.fromkeys(model for model in models if model is not None):
            observed.enter_context(_observed(model, lambda x, t, args, more: found.append(_forward(x, t, args, more, rows))))
        yield found


@contextmanager
def _observed(model: Any, note: Callable[[Tensor, Tensor, tuple, dict], None]) -> Iterator[None]:
    """Have what a model's `apply_model` is given noted."""
    inner, replaced = model.apply_model, "apply_model" in vars(model)

    def apply_model(x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
        note(x, t, args, kwargs)
        return inner(x, t, *args, **kwargs)

    vars(model)["apply_model"] = apply_model
    try:
        yield
    finally:
        if replaced:
            vars(model)["apply_model"] = inner
        else:
            del vars(model)["apply_model"]


def _forward(x: Tensor, t: Tensor, args: tuple, kwargs: Mapping[str, Any], rows: int) -> Hashable:
    passed = dict(kwargs)
    options = passed.pop("transformer_options", None) or {}
    together = tuple(options.get("cond_or_uncond", ()))
    batch = x.shape[0]
    patches = tuple((name, tuple(sorted(map(str, options.get(name, {}))))) for name in PATCHES)
    return (together, patches, batch / (rows * max(1, len(together))), _kind([x, t, *args], batch), _kind(passed, batch))


def _kind(value: Any, batch: int) -> Hashable:
    """Return what a value is, but for the numbers in a tensor and the size of the batch."""
    if isinstance(value, Tensor):
        shape = ("batch" if value.shape[0] == batch else value.shape[0], *value.shape[1:]) if value.ndim else ()
        return (str(value.dtype), shape)
    if isinstance(value, Mapping):
        return tuple((str(key), _kind(inner, batch)) for key, inner in sorted(value.items(), key=lambda pair: str(pair[0])))
    if isinstance(value, (list, tuple)):
        return tuple(_kind(inner, batch) for inner in value)
    if isinstance(value, (bool, str, type(None))):
        return value
    return type(value).__qualname__
