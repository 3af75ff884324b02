"""What a spec says of itself: its node, and of each setting the range, the choices and the tooltip.

A spec is a frozen dataclass with an attribute `node`. Each field that is a setting has an annotation such as

    cosine: Annotated[float, Range(-1.0, 0.9999, 0.01), Tooltip("Larger is closer.")] = 0.95

From these the node's schema, its `execute`, the English texts and the table of nodes are made; nothing else lists specs.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Node:
    """The node of a spec.

    Attributes:
        node_id: a literal, so that it can be found in the source.
        display_name: what the node is called.
        description: what it does, in one to three sentences.
        search_aliases: other words that find it, two at least.
    """

    node_id: str
    display_name: str
    description: str
    search_aliases: tuple[str, ...]


@dataclass(frozen=True)
class Range:
    """What values a number may have on the node.

    Attributes:
        min, max: the least and the largest.
        step: of the node's arrows; None for ComfyUI's.
        round: what it is rounded to; None for the step.
    """

    min: float
    max: float
    step: float | None = None
    round: float | None = None


@dataclass(frozen=True)
class Choices:
    """The values of which a text is one."""

    options: tuple[str, ...]


@dataclass(frozen=True)
class Tooltip:
    """What a setting does, and what values are useful."""

    text: str


@dataclass(frozen=True)
class InputId:
    """The node's input has another id than the field."""

    id: str


@dataclass(frozen=True)
class Advanced:
    """The node shows the input among its advanced ones."""


@dataclass(frozen=True)
class OffAtZero:
    """The node's input is optional, and 0 there is None."""


class Setting(NamedTuple):
    """A field of a spec as its annotation declares it.

    Attributes:
        name: of the field.
        id: of the node's input.
        type: without what else the annotation holds, and without None.
        default: the field's.
        tooltip: what the input does.
        range: None where it is no number.
        choices: None where any value will do.
        advanced: whether the node shows it among its advanced inputs.
        off_at_zero: whether 0 at the input is None in the field.
    """

    name: str
    id: str
    type: Any
    default: Any
    tooltip: str
    range: Range | None
    choices: Choices | None
    advanced: bool
    off_at_zero: bool


@cache
def settings_of(spec: type) -> tuple[Setting, ...]:
    """Return the annotated fields of a spec, in order.

    Raises:
        TypeError: a field has an annotation without a tooltip.
    """
    hints = get_type_hints(spec, include_extras=True)
    return tuple(_setting(spec, field.name, field.default, hints[field.name]) for field in fields(spec) if field.init)


def _setting(spec: type, name: str, default: Any, hint: Any) -> Setting:
    type_, *said = get_args(hint) if get_origin(hint) is Annotated else [hint]
    found = {type(one): one for one in said}
    if Tooltip not in found:
        raise TypeError(f"{spec.__name__}.{name} needs an annotation with a tooltip: Annotated[..., Tooltip('...')]")
    return Setting(
        name, found[InputId].id if InputId in found else name, _without_none(type_), default, found[Tooltip].text,
        found.get(Range), found.get(Choices), Advanced in found, OffAtZero in found,
    )  # fmt: skip


def check_least(made: Any, *names: str) -> None:
    """Raise a ValueError if a setting of a spec's object, of those named, is below the least of its range."""
    for setting in settings_of(type(made)):
        if setting.name in names and getattr(made, setting.name) < setting.range.min:
            least, value = setting.range.min, getattr(made, setting.name)
            raise ValueError(f"'{setting.id}' must be at least {least:g}, not {value}")


def _without_none(type_: Any) -> Any:
    """Return X for X | None, and any other type as it is."""
    if get_origin(type_) not in (Union, UnionType):
        return type_
    (only,) = (one for one in get_args(type_) if one is not NoneType)
    return only


def modules_in(package: ModuleType) -> Iterator[ModuleType]:
    """Yield the modules that lie in a package's folder, by name, those of its sub-packages after its own."""
    found = sorted(pkgutil.iter_modules(package.__path__), key=lambda module: (module.ispkg, module.name))
    for info in found:
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        yield module
        if info.ispkg:
            yield from modules_in(module)


def specs_in(package: ModuleType) -> list[type]:
    """Return the specs that a package's modules define, by the name of the module."""
    return [
        found for module in modules_in(package) for found in vars(module).values()
        if isinstance(found, type) and found.__module__ == module.__name__ and isinstance(found.__dict__.get("node"), Node)
    ]  # fmt: skip
