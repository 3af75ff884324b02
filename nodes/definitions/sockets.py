"""The pack's own socket types."""

from __future__ import annotations

from comfy_api.latest import io

Verifier = io.Custom("NS_VERIFIER")
Method = io.Custom("NS_METHOD")
Proposal = io.Custom("NS_PROPOSAL")
Budget = io.Custom("NS_BUDGET")
