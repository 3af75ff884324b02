"""A node of a spec: schema and `execute` are made from the spec's annotated fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from comfy_api.latest import io

from ...search.noise.proposals import NoiseProposal
from ...search.spec import Setting, settings_of
from .schema import inp, schema
from .sockets import Proposal

NUMBERS = {int: io.Int, float: io.Float}
SOCKETS = {NoiseProposal: Proposal}
LIST = tuple[float, ...]  # a text of numbers between commas on the node


def _as_it_is(made: Any) -> Any:
    return made


def node_of(
    spec: Any,
    category: str,
    output: Callable[[], Any],
    more: Callable[[], Sequence[Any]] = tuple,
    finish: Callable[..., Any] = _as_it_is,
) -> type[io.ComfyNode]:
    """Return the node class of a spec.

    Args:
        spec: the class, with its attribute `node`.
        category: the menu's.
        output: makes the node's output.
        more: makes the inputs that come after the spec's own.
        finish: gets the spec's object, and by their ids what those inputs were given; returns what the node outputs.
    """

    def define_schema(cls: type) -> io.Schema:
        return schema(
            node_id=spec.node.node_id,
            display_name=spec.node.display_name,
            category=category,
            description=spec.node.description,
            search_aliases=list(spec.node.search_aliases),
            inputs=[*inputs_of(spec), *more()],
            outputs=[output()],
        )

    def execute(cls: type, **given: Any) -> io.NodeOutput:
        made = spec(**fields_of(spec, given))
        return io.NodeOutput(finish(made, **given))

    # No class statement: ComfyUI-Manager would read its name off the source as the id of a node.
    members = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    return type(spec.node.node_id, (io.ComfyNode,), {"__doc__": spec.__doc__, "__module__": __name__, **members})


def inputs_of(spec: type) -> Iterator[Any]:
    """Yield the inputs of a spec's node: the settings in order, then what is connected."""
    for setting in sorted(settings_of(spec), key=lambda setting: setting.type in SOCKETS):
        yield _input(setting)


def fields_of(spec: type, given: dict[str, Any]) -> dict[str, Any]:
    """Take what a spec's own inputs were given out of `given`, and return it as values of the spec's fields."""
    return {setting.name: _value(setting, given.pop(setting.id)) for setting in settings_of(spec) if setting.id in given}


def _input(setting: Setting) -> Any:
    more: dict[str, Any] = {"tooltip": setting.tooltip}
    if setting.advanced:
        more["advanced"] = True
    if setting.type in SOCKETS:
        return inp(SOCKETS[setting.type], setting.id, optional=True, **more)
    if setting.off_at_zero:
        more |= {"optional": True, "default": 0.0}
    else:
        more["default"] = setting.default
    if setting.type is bool:
        return inp(io.Boolean, setting.id, **more)
    if setting.choices is not None:
        return inp(io.Combo, setting.id, options=list(setting.choices.options), **more)
    if setting.type == LIST:
        return inp(io.String, setting.id, **{**more, "default": ", ".join(f"{number:g}" for number in setting.default)})
    allowed = {name: value for name, value in vars(setting.range).items() if value is not None}
    return inp(NUMBERS[setting.type], setting.id, **allowed, **more)


def _value(setting: Setting, given: Any) -> Any:
    if setting.off_at_zero:
        return given or None
    if setting.type == LIST:
        return _numbers(setting, given)
    return given


def _numbers(setting: Setting, text: str) -> tuple[float, ...]:
    """Read numbers between commas."""
    try:
        return tuple(float(word) for word in text.replace(";", ",").split(",") if word.strip())
    except ValueError as error:
        raise ValueError(f"{setting.id}: must be numbers between commas, as in '0, 0.4, 0.8', not {text[:60]!r}") from error
