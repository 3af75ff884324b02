"""A cascade in the search node: what its outputs and its report say."""

from __future__ import annotations

import pytest
import torch

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
from searching import Broken, decoded, interrupt, parts, search_with, stock_with, strict  # noqa: E402

from noise_search.nodes.definitions.verifiers.cascade import NSVerifierCascade  # noqa: E402
from noise_search.nodes.server.live import searches  # noqa: E402
from noise_search.search.methods.halving import HalvingSearch  # noqa: E402
from noise_search.search.methods.random_search import RandomSearch  # noqa: E402
from noise_search.verifiers.measures.guidance_gap import GuidanceGap  # noqa: E402
from noise_search.verifiers.measures.statistics import ImageStatistics  # noqa: E402
from toys import ToyVerifier, empty_latent, run_node  # noqa: E402

SHARP = ImageStatistics(1, 0, 0, 0)


def cascade(cheap=None, dear=SHARP, finalists=3, share=0.25):
    return run_node(NSVerifierCascade, cheap=cheap or ToyVerifier(), expensive=dear, finalists=finalists, share=share)[0]


def test_the_winner_is_the_dear_one_s_and_stock_nodes_make_it():
    graph = parts("eps")
    found = search_with(graph, 3, verifier=cascade(), budget=12, keep=2, method=RandomSearch(), held_out=ToyVerifier())
    report, cascaded = found.report, found.report["cascade"]
    alone = search_with(graph, 3, verifier=ToyVerifier(), budget=12, method=RandomSearch()).report
    judged = {0, *alone["order"][:3]}
    assert report["verifier"] == "toy-redness, then image statistics" and cascaded["verifier"] == SHARP.name
    assert set(map(int, cascaded["scores"])) == judged
    assert (cascaded["candidates_scored"], cascaded["candidates_saved"]) == (len(judged), 12 - len(judged))
    assert cascaded["verifier_calls"] == len(judged) and report["verifier_calls"] == 12
    best = report["best"]
    assert best["index"] == report["order"][0] == int(max(cascaded["scores"], key=cascaded["scores"].get))
    assert found.score == best["score"] == cascaded["scores"][str(best["index"])]
    assert report["gain"] == pytest.approx(best["score"] - cascaded["scores"]["0"]) and report["gain"] >= 0
    assert report["baseline"]["score"] == cascaded["scores"]["0"]
    assert [c["score"] for c in report["candidates"]] == [c["score"] for c in alone["candidates"]]
    # The pictures are those of the order, and the held-out scores are of them.
    assert SHARP.score(found.images[:1]).item() == pytest.approx(found.score, abs=1e-6)
    shown = {str(k) for k in (0, *report["kept"])}
    assert set(report["held_out"]["scores"]) == shown
    assert report["held_out"]["scores"][str(best["index"])] == pytest.approx(best["scores"]["toy-redness"], abs=1e-6)
    torch.testing.assert_close(decoded(graph, stock_with(graph, found.noise)), found.images[:1], rtol=1e-4, atol=1e-4)


def test_without_a_cascade_there_is_nothing_to_tell():
    assert search_with(parts("eps"), 3, budget=3, method=RandomSearch()).report["cascade"] is None


def test_looks_are_saved_too():
    found = search_with(parts("eps"), 3, verifier=cascade(finalists=1), budget=6, method=HalvingSearch())
    scored = sum(len(c["looks"]) + (c["status"] == "finished") for c in found.report["candidates"])
    cascaded = found.report["cascade"]
    assert cascaded["candidates_scored"] in (1, 2)
    assert cascaded["candidates_saved"] == scored - cascaded["candidates_scored"]


def test_every_row_of_a_batch_has_finalists_of_its_own():
    dear = ToyVerifier("dear")
    graph = parts("eps", latent=empty_latent("eps", batch=2))
    found = search_with(graph, 3, verifier=cascade(SHARP, dear, 2), budget=5, method=RandomSearch())
    cascaded = [report["cascade"] for report in found.report]
    assert all(said["candidates_scored"] in (2, 3) for said in cascaded)
    assert sum(dear.batches) == sum(said["candidates_scored"] for said in cascaded)
    tops = [max(said["scores"].values()) for said in cascaded]
    assert found.score == pytest.approx(sum(tops) / 2)


def test_a_dear_one_that_scores_runs():
    found = search_with(parts("eps"), 3, verifier=cascade(dear=GuidanceGap(2)), budget=5, method=RandomSearch())
    cascaded = found.report["cascade"]
    assert cascaded["verifier_calls"] == 0 and cascaded["candidates_scored"] >= 3
    assert all(score > 0 for score in cascaded["scores"].values())


def test_a_cheap_one_that_needs_no_picture_leaves_decoding_to_the_end():
    found = search_with(parts("eps"), 3, verifier=cascade(GuidanceGap(2), SHARP, 2), budget=8, method=RandomSearch())
    assert found.report["decodes"] == found.report["cascade"]["candidates_scored"] <= 3


@pytest.mark.parametrize("pressed", ["before", "in"])
def test_cancelled_the_order_is_the_cheap_one_s(pressed):
    def press(images):
        interrupt()
        mm.throw_exception_if_processing_interrupted()

    dear = Broken(press)
    cheap = Broken(press, lambda images: len(cheap.seen) == 3) if pressed == "before" else ToyVerifier()
    options = {"budget": 20, "method": RandomSearch(), "batching": "off"}
    try:
        found = search_with(parts("eps"), 3, verifier=cascade(cheap, dear), on_cancel="keep best", **options)
        assert found.report["cascade"] is None
        assert found.report["stopped"].endswith("the second was not asked")
        alone = search_with(parts("eps"), 3, verifier=ToyVerifier(), **options).report["candidates"]
        assert found.score == pytest.approx(max(c["score"] for c in alone[: len(found.report["order"])]))
        assert len(dear.seen) == (pressed == "in")
        with pytest.raises(mm.InterruptProcessingException):
            search_with(parts("eps"), 3, verifier=cascade(ToyVerifier(), dear), **options)
    finally:
        mm.interrupt_current_processing(False)


def test_a_cascade_measures_nothing():
    with pytest.raises(ValueError, match="^held_out: 'toy-redness, then image statistics' is a cascade"):
        search_with(parts("eps"), 3, held_out=cascade())


def test_its_report_is_json_where_the_dear_one_fails():
    dear = Broken(lambda images: images.mean((1, 2, 3)) * torch.nan)
    found = search_with(parts("eps"), 3, verifier=cascade(dear=dear), budget=4, method=RandomSearch())
    assert found.report["cascade"]["scores"] == {} and len(found.report["cascade"]["problems"]) >= 3
    assert "the order is the first verifier's" in found.report["notes"][0]
    assert strict(found.recipe)


def test_the_node_says_what_is_wrong():
    with pytest.raises(ValueError, match="input 'expensive' is a cascade itself"):
        cascade(dear=cascade())


def test_a_discard_while_the_finalists_are_judged_is_heard():
    plain = search_with(parts("eps"), 3, verifier=cascade(), budget=6, method=RandomSearch()).report

    class Discarding:
        name, score_range, needs_prompt, trusts_previews = SHARP.name, (0.0, 1.0), False, True

        def score(self, images, latents=None):
            feed = list(searches._listed.values())[-1].feed
            feed.search.user_requests.discard(plain["best"]["index"])
            return SHARP.score(images)

    report = search_with(parts("eps"), 3, verifier=cascade(dear=Discarding()), budget=6, method=RandomSearch()).report
    assert report["order"][0] == plain["order"][1]
    assert report["candidates"][plain["best"]["index"]]["discarded"]
