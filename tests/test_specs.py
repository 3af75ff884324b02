"""Specs and the nodes that are made from them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import pytest

from noise_search.search import methods
from noise_search.search.noise import proposals
from noise_search.search.noise.proposals import GaussianProposal, NoiseProposal
from noise_search.search.spec import (
    Advanced,
    Choices,
    InputId,
    Node,
    OffAtZero,
    Range,
    Tooltip,
    check_least,
    modules_in,
    settings_of,
    specs_in,
)


@dataclass(frozen=True)
class Toy:
    """A spec with a setting of every kind."""

    node = Node(node_id="ForeignToy", display_name="Toy", description="Does nothing. At all.", search_aliases=("nothing", "none"))

    inner: Annotated[NoiseProposal | None, InputId("proposal"), Tooltip("What is connected.")] = None
    count: Annotated[int, Range(1, 9), Tooltip("How many.")] = 3
    share: Annotated[float, Range(0.0, 1.0, 0.05, 0.001), Advanced(), Tooltip("How much.")] = 0.5
    kind: Annotated[str, Choices(("a", "b")), Tooltip("Which.")] = "a"
    on: Annotated[bool, Tooltip("Whether.")] = True
    at: Annotated[tuple[float, ...], Tooltip("Where.")] = (0.0, 0.25)
    limit: Annotated[float | None, Range(-1.0, 1.0), OffAtZero(), Tooltip("Up to what.")] = None


def toy_node():
    from inprocess import boot

    boot()
    from noise_search.nodes.definitions.from_spec import node_of
    from noise_search.nodes.definitions.sockets import Proposal

    return node_of(Toy, "toys", lambda: Proposal.Output("proposal"))


def test_every_setting_needs_a_tooltip():
    @dataclass(frozen=True)
    class Mute:
        count: int = 1

    with pytest.raises(TypeError, match=r"^Mute\.count needs an annotation with a tooltip"):
        settings_of(Mute)


def test_the_least_of_a_range_is_checked():
    check_least(Toy(count=1, share=-1.0), "count")
    with pytest.raises(ValueError, match="^'count' must be at least 1, not 0$"):
        check_least(Toy(count=0), "share", "count")


@pytest.mark.parametrize("package", [methods, proposals])
def test_the_specs_of_a_package_are_complete(package):
    """Their defaults lie in their ranges, and each can be made without arguments."""
    specs = specs_in(package)
    assert len(specs) == len({spec.node.node_id for spec in specs}) >= 6
    for spec in specs:
        assert spec() == spec(**{field.name: field.default for field in fields(spec) if field.init})
        for setting in settings_of(spec):
            assert setting.tooltip.endswith(".")
            if setting.range is not None and not setting.off_at_zero:
                assert setting.range.min <= setting.default <= setting.range.max, setting
            if setting.choices is not None:
                assert setting.default in setting.choices.options


def test_modules_are_found_without_a_list():
    found = {module.__name__.removeprefix(f"{methods.__name__}.") for module in modules_in(methods)}
    assert {"random_search", "zero_order", "chain"} <= found
    assert GaussianProposal in specs_in(proposals)
    assert NoiseProposal not in specs_in(proposals)


@pytest.mark.comfy
def test_a_schema_follows_from_the_annotations():
    schema = toy_node().define_schema()
    assert (schema.node_id, schema.display_name, schema.category) == ("ForeignToy", "Toy", "toys")
    inputs = {item.id: item for item in schema.inputs}
    assert list(inputs) == ["count", "share", "kind", "on", "at", "limit", "proposal"]
    assert (inputs["count"].min, inputs["count"].max, inputs["count"].default) == (1, 9, 3)
    assert (inputs["share"].step, inputs["share"].round, inputs["share"].default) == (0.05, 0.001, 0.5)
    assert (inputs["kind"].options, inputs["kind"].default) == (["a", "b"], "a")
    assert inputs["on"].default is True and inputs["at"].default == "0, 0.25" and inputs["limit"].default == 0.0
    assert [name for name, item in inputs.items() if item.optional] == ["limit", "proposal"]
    assert [item.tooltip for item in schema.inputs][-2:] == ["Up to what.", "What is connected."]


@pytest.mark.comfy
def test_a_node_makes_its_spec():
    from inprocess import run_node

    node = toy_node()
    plain = {"count": 3, "share": 0.5, "kind": "a", "on": True, "at": "0, 0.25"}
    assert run_node(node, **plain) == (Toy(),)
    given = {"count": 2, "share": 0.1, "kind": "b", "on": False, "at": ".5; 1,", "limit": 0.4, "proposal": GaussianProposal()}
    assert run_node(node, **given) == (Toy(GaussianProposal(), 2, 0.1, "b", False, (0.5, 1.0), 0.4),)
    assert run_node(node, **plain, limit=0.0) == (Toy(limit=None),)
    with pytest.raises(ValueError, match="^at: must be numbers between commas, as in '0, 0.4, 0.8', not 'x'"):
        run_node(node, **{**plain, "at": "x"})
    with pytest.raises(TypeError, match="unknown"):
        run_node(node, **plain, unknown=1)
