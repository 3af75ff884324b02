"""Noise proposals as nodes: how a search draws new noise. One for each spec in `search/noise/proposals/`."""

from __future__ import annotations

from ...search.noise import proposals
from ...search.spec import specs_in
from .from_spec import node_of
from .sockets import Proposal

CATEGORY = "noise search/proposals"

NODES = [node_of(spec, CATEGORY, lambda: Proposal.Output("proposal")) for spec in specs_in(proposals)]
