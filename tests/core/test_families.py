"""Model families, searched by every kind of method: every candidate equals its stock run, or runs alone and says so."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.comfy

from families import FAMILIES
from family_checks import SEARCHES, check_search, looked_halfway, looks

# What `make test` keeps: one family of each way of coupling, of each kind of latent, and all that ever failed.
KEPT = [name for name in (
    "sd 1.5", "flux kontext", "hidream", "lumina 2 with a mask", "hunyuan video with a mask", "wan 2.1 vace", "ltx-av",
    "stable audio", "ace-step 1.5", "hunyuan 3d 2.1", "hunyuan 3d 2.1 without guidance",
) if name in FAMILIES]  # fmt: skip


def each(names, marks=()):
    return [pytest.param(name, marks=[pytest.mark.xdist_group(name), *marks], id=name) for name in names]


NAMES = each(KEPT) + each([name for name in FAMILIES if name not in KEPT], [pytest.mark.matrix])


@pytest.mark.parametrize("name", NAMES)
def test_the_network_looks_at_everything(name):
    for what, change in looks(name).items():
        assert change > 1e-3 or what in FAMILIES[name].ignores, what


@pytest.mark.parametrize("which", SEARCHES)
@pytest.mark.parametrize("name", NAMES)
def test_every_candidate_is_a_stock_run(name, which):
    report = check_search(name, which).report
    reasons = " ".join(report["one_by_one_because"])
    alone = FAMILIES[name].alone
    assert alone in reasons if alone else not reasons and looked_halfway(report, which)
