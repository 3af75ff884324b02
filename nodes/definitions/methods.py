"""Search methods as nodes: frozen specs on a wire. One for each spec in `search/methods/`."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ...search import methods
from ...search.methods.chain import Chain
from ...search.spec import specs_in
from .from_spec import node_of
from .schema import inp
from .sockets import Method

CATEGORY = "noise search/methods"


def then_inputs() -> list[Any]:
    """Return the last inputs of every method node: what goes on from its winner."""
    return [
        inp(Method, "then", optional=True, tooltip="A method that goes on from this one's winner, under the same budget: "
            "for instance halving search, then zero-order search around what it found."),
        inp(io.Float, "then_after", optional=True, default=0.5, min=0.01, max=0.99, step=0.01, advanced=True,
            tooltip="With then: the share of the budget that this method spends before. Usual: 0.3 to 0.7."),
    ]  # fmt: skip


def chained(method: Any, then: Any | None = None, then_after: float = 0.5) -> Any:
    """Return the method, or the chain of it and `then`."""
    return method if then is None else Chain(method, then, then_after)


NODES = [node_of(spec, CATEGORY, lambda: Method.Output("method"), then_inputs, chained) for spec in specs_in(methods)]
