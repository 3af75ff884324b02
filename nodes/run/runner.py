"""Runs the searches of a node: one for each row of the latent batch, and puts their outcomes together."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import comfy.model_management as mm
import comfy.sample
import torch
from comfy_api.latest import io
from torch import Tensor

from ...search.base.budget import Budget, StopRules
from ...search.base.candidate import Candidate, calls_of
from ...search.core.control import SearchControl
from ...search.core.search import Method, Search, SearchSettings
from ...search.core.status_text import restored
from ...search.core.user_requests import UserRequests
from ...search.lockstep.rng import take_rng
from ...search.lockstep.shared_check import SharedCallsDiffer
from ...search.lockstep.trajectory import Trajectory
from ...search.methods.auto_search import choose_for
from ...search.methods.chain import Chain
from ...search.methods.random_search import RandomSearch
from ...search.noise.recipe import GIVEN, ZERO, Recipe, derived_seed, is_zero
from ...search.reporting.live_feed import ENDED, LiveFeed
from ...search.reporting.report import opened
from ...search.run import run_search
from ...search.scoring.scorer import Scorer
from ...search.selection.cascade import final_score, judge_finalists
from ...search.selection.pairwise import compare_finalists
from ..adapter.batch_rows import row_guider
from ..adapter.batching_policy import rows_are_frames
from ..adapter.noise import (
    BatchNoise,
    RecipeNoise,
    SegmentNoise,
    check_shape,
    drawn_by_seed,
    is_stock,
    join,
    mask_rows,
    pack,
    row_latent,
    rows_of,
)
from ..adapter.progress import Progress
from ..adapter.prompt_context import PromptContext
from ..adapter.session import ComfySession, SamplingInputs, samples_of
from ..server.live import ClientSession
from ..store.search_store import CHOOSES, SearchStore, remembering
from .metadata import keep_found
from .plot import Curve, draw_curve
from .report import report, report_text, score_held_out
from .rounds import AUTO, decide
from .selection import NOTHING_NEW, chosen_recipe, only_known, take

log = logging.getLogger("noise-search")
JITTERED = (
    "the winner has a text embedding of its own (conditioning jitter): in stock nodes its noise gives its picture only with "
    "'Jitter Conditioning' and the same recipe on the positive conditioning; 'Render Candidate' needs nothing else"
)
MIXED = (
    "noise: what candidates near another are mixed with (neighbors, low frequencies, right angles, boxes, noise that is added "
    "again) is Gaussian, whatever NOISE is connected"
)
BEGUN_ANEW = (
    "{reason}: that was found when some answers had been used already, so that the search was begun anew, one candidate a call; "
    "the model calls before ('given_up_calls') do not count to the budget"
)
NOT_ASKED = ", by the first verifier of the cascade: the second was not asked"


@dataclass
class Settings:
    """The search inputs that both search nodes share; see `nodes/definitions/search.py` for what each means.

    Attributes:
        forgotten: see `remembering`.
    """

    verifier: Any
    budget: int
    keep: int
    method: Method | None = None
    limits: StopRules = field(default_factory=StopRules)
    held_out: Any = None
    keep_on_cancel: bool = False
    skip_errors: bool = False
    batching: str = "auto"
    choose: str = ""
    resume: str = "on"
    rounds: str = AUTO
    forgotten: set[str] = field(default_factory=set, init=False)


@dataclass
class Outcome:
    """What one search found.

    Attributes:
        images: best first (keep F, H, W, 3).
        latent: best first, rows of a LATENT.
        noise: the winner's NOISE.
        seed: its step seed.
        score: its combined score.
        recipe: makes it again.
        report: JSON values.
        plot: IMAGE (1, H, W, 3).
        cancelled: the user cancelled, and what was found is kept.
        sigmas: noise levels of the winner's last segment (S + 1,).
    """

    images: Tensor
    latent: Any
    noise: Any
    seed: int
    score: float
    recipe: Recipe
    report: dict[str, Any]
    plot: Tensor
    cancelled: bool
    sigmas: Tensor


def search_graph(
    noise: Any, guider: Any, sampler: Any, sigmas: Tensor, latent: dict[str, Any], vae: Any, preview_vae: Any,
    settings: Settings, caller: PromptContext | None = None,
) -> io.NodeOutput:  # fmt: skip
    """Search for every row of the latent batch, one after another, and return the node's outputs."""
    check_inputs(sigmas, settings)
    latent = repaired(guider, latent)
    searches = count_rows(guider, latent)
    progress = Progress(guider, searches, settings.budget, len(sigmas) - 1)
    audience = ClientSession(caller or PromptContext(), searches)
    outcomes: list[Outcome] = []
    for row, graph in enumerate(graphs(noise, guider, sampler, sigmas, latent, vae, preview_vae, others=True)):
        try:
            with audience.watch(row) as feed:
                outcomes.append(search_row(graph, settings, progress, row, caller, feed))
        except BaseException as error:
            if not (is_interrupt(error) and settings.keep_on_cancel and outcomes):
                raise
            break  # nothing to keep of this row; there is of those before it
        if outcomes[-1].cancelled:
            break
    found = outputs(outcomes, latent, searches > 1)
    found.ui = audience.output()
    return keep_found(found, caller or PromptContext(), [opened(o.report) for o in outcomes])


def count_rows(guider: Any, latent: dict[str, Any]) -> int:
    """Return how many searches a latent batch is: one per row, or one if the rows are frames of one video."""
    return 1 if rows_are_frames(guider) else latent["samples"].shape[0]


def graphs(
    noise: Any, guider: Any, sampler: Any, sigmas: Tensor, latent: dict[str, Any], vae: Any, preview_vae: Any = None,
    *, others: bool = False,
) -> Iterator[SamplingInputs]:  # fmt: skip
    """Yield what each search works on: row b of latent, noise, mask, conditioning and control hints.

    `others`: there will be other candidates, so that what their noise is has to be known.
    """
    count = count_rows(guider, latent)
    given = noise.generate_noise(latent).to("cpu")
    check_shape(pack(given), latent)
    shape = tuple(pack(given).shape)
    state = take_rng(guider.model_patcher.load_device)
    by_stock = not is_zero(pack(given)) and is_stock(noise, latent, pack(given))
    by_seed, note = drawn_by_seed(noise, latent, pack(given), by_stock) if others else (False, "")
    if count == 1:
        one = guider if rows_are_frames(guider) else row_guider(guider, 0, shape)  # of many rows core uses the first too
        yield SamplingInputs(
            one, sampler, sigmas, latent, noise, given, state, vae, preview_vae, by_stock, by_seed=by_seed, note=note
        )
        return
    for row in range(count):
        yield SamplingInputs(
            row_guider(guider, row, shape), sampler, sigmas, row_latent(latent, row), noise, rows_of(given, row, 1), state,
            vae, preview_vae, row_of_batch=True, by_seed=by_seed, note=note,
        )  # fmt: skip


def search_row(
    graph: SamplingInputs, settings: Settings, progress: Progress, row: int, caller: PromptContext | None, feed: LiveFeed
) -> Outcome:
    """Run one search to its end, the budget's end, or the user's cancel.

    It is begun anew, at most once, if shared model calls whose answers it used turn out to be wrong.
    """

    def called(runs: Sequence[Trajectory], denoised: Tensor) -> None:
        progress.called(runs, denoised)
        feed.touch()

    budget = Budget(settings.budget, settings.limits)
    progress.begin(budget)
    session, notes = ComfySession(graph, budget, batching=settings.batching, called=called), []
    while True:
        with remembering(session, caller, settings.resume, settings.batching, settings.forgotten) as memory:
            try:
                return search_once(session, settings, progress, row, memory, feed, notes)
            except SharedCallsDiffer as found:
                if notes:
                    raise
                memory.forget_looks()
                notes = [BEGUN_ANEW.format(reason=found)]
        budget = budget.begin_anew()
        progress.begin_anew(budget)
        session = session.begin_anew(budget)


def search_once(
    session: ComfySession, settings: Settings, progress: Progress, row: int, memory: SearchStore, feed: LiveFeed, notes: list[str]
) -> Outcome:
    """Run one search of a session to its end; `notes` are the first of it.

    Raises:
        SharedCallsDiffer: it has to begin anew.
    """
    graph, feed.album = session.graph, memory.album(feed.album)
    scorer = memory.lend(scorer_for(settings.verifier, settings.skip_errors), CHOOSES)
    # Every row of a batch draws other candidates; row 0's are those of a batch of one.
    seed = derived_seed(graph.noise.seed, "row", row) if row else graph.noise.seed
    rounds = decide(settings.rounds, session, scorer)
    search = Search(
        memory.session, scorer, session.budget,
        SearchSettings(baseline(graph), seed, settings.keep, progress.best, connected=graph.by_seed, large_rounds=rounds.large),
        SearchControl(UserRequests(mm.throw_exception_if_processing_interrupted)), feed,
    )  # fmt: skip
    search.note(*notes, *filter(None, [graph.note, rounds.note]), *scorer.notes)
    memory.follow(search)
    wanted = chosen_recipe(settings.choose, feed.about["search"])
    replayed = only_known(search, memory, wanted)
    method, cancelled = run(search, settings)
    if replayed and not cancelled:
        search.stop(NOTHING_NEW, override=True)
    outcome = finish(search, session, method, settings, cancelled, memory, wanted)
    outcome.report["round_size"] = rounds.as_dict()
    feed.end(ENDED, stopped=search.stopped, chosen=outcome.report["chosen"])
    return outcome


def run(search: Search, settings: Settings) -> tuple[Method, bool]:
    """Run a search; return its method, and whether the user cancelled it and the best so far is kept."""
    if settings.held_out is not None:
        search.expect(Scorer(settings.held_out))
    method = settings.method or RandomSearch()
    try:
        if settings.method is None:
            method, why = choose_for(search, settings.budget)
            if not isinstance(method, Chain) or search.planner.why_no_drafts:
                search.note(f"without a method, {method.name} was chosen: {why}")
        for told in run_search(search, method):
            log.debug("round %d: best %.4g after %d model calls", told.index, told.score, told.nfe)
        judge_finalists(search)
        compare_finalists(search, is_interrupt)
        search.checkpoint()  # what was asked meanwhile
    except SharedCallsDiffer:
        raise
    except BaseException as error:
        return method, keep_or_raise(error, search, settings)
    finally:
        search.close()
    return method, False


def keep_or_raise(error: BaseException, search: Search, settings: Settings) -> bool:
    """Return True if this is a cancel and the best so far is to be kept; else say what was found, and raise."""
    if is_interrupt(error) and settings.keep_on_cancel:
        list(search.score())
    ranked = search.ranked
    if ranked:
        best, score = ranked[0]
        log.warning("search ended by %s after %d candidates; best so far: score %.6g, recipe %s",
                    type(error).__name__, len(ranked), score, best.recipe.to_json())  # fmt: skip
    if is_interrupt(error) and settings.keep_on_cancel and ranked:
        search.stop("cancelled: the best so far is kept" + (NOT_ASKED if search.scorer.dear is not None else ""), override=True)
        return True
    if isinstance(error, ValueError) and "Overflow when unpacking" in str(error):
        raise ValueError(
            f"seed: this sampler adds 1 to the seed and {search.seed} is the largest there is: use a smaller seed"
        ) from error
    raise error


def finish(
    search: Search, session: ComfySession, method: Method, settings: Settings, cancelled: bool, memory: SearchStore,
    wanted: Recipe | None,
) -> Outcome:  # fmt: skip
    """Decode the finalists, score them with the held-out verifier, and put the outcome together."""
    best, finalists = take(search, memory, wanted, settings.keep)
    ranked = search.ranked
    score = final_score(search, best)
    score = best.score if score != score else score  # one that was chosen may have been no finalist
    for candidate in finalists:
        search.runs.restore(candidate)
    images = search.evaluator.image_cache.joined(finalists)
    search.observer.shown(finalists, images.chunk(len(finalists)), {})
    held_out = None
    if settings.held_out is not None:
        scorer = scorer_for(settings.held_out, skip_errors=True)  # it must not cost the winner
        memory.lend(scorer, "held_out")
        search.note(*scorer.notes, once=True)
        held_out = score_held_out(search, scorer, finalists)
    if best.recipe.jitter is not None:
        search.note(JITTERED)
    if any(candidate.recipe.mixes_noise for candidate in search.candidates):
        search.note(MIXED)
    again = search.runs.restored
    search.note(*memory.notes, *session.memory_notes, *[restored(again)] * bool(again))
    said = report(search, session, method, finalists, held_out, None if best is ranked[0][0] else best, memory.recalled)
    own = final_score(search, search.baseline)
    log.info("%s: best %.6g (your seed %.6g) of %d candidates, %d model calls, %.1f s, recipe %s", method.name, score,
             own, len(ranked), search.budget.nfe, search.budget.seconds, best.recipe.to_json())  # fmt: skip
    latents = [samples_of(c.latent) for c in finalists]
    return Outcome(
        images, join(latents), winner_noise(best, session), best.recipe.step_seed, score, best.recipe, said,
        plot(search, method), cancelled, best.segment_start[1] if best.recipe.cuts else session.sigmas,
    )  # fmt: skip


def winner_noise(best: Candidate, session: ComfySession) -> Any:
    """Return the NOISE that stock nodes turn into the winner; the user's own if it started from that."""
    unmoved = best.recipe.start == GIVEN and not (best.recipe.moves or best.recipe.cuts)
    if (best.index == 0 or unmoved) and not session.graph.row_of_batch:
        return session.graph.noise
    if best.recipe.cuts:
        return SegmentNoise(best.segment_start[0], best.recipe.step_seed, best.recipe.cuts[-1].noise_seed)
    recipe, graph = best.recipe, session.graph
    return RecipeNoise(recipe, pack(graph.given) if recipe.start == GIVEN else None, graph.noise if recipe.connected else None)


def plot(search: Search, method: Method) -> Tensor:
    """Draw best score against model calls."""
    done = list(calls_of((told.candidates, told.nfe) for told in search.rounds))
    calls, scores = [calls for calls, _ in done], [search.candidates[index].score for _, index in done]
    title = f"{method.name}: {len(search.finished.members)} full images, {search.budget.nfe} model calls"
    return draw_curve(Curve(calls, scores, search.baseline.score, title, search.scorer.verifier.name))


def outputs(outcomes: list[Outcome], latent: dict[str, Any], batch: bool) -> io.NodeOutput:
    """Stack what the searches found into the node's outputs; `batch`: they are rows of a latent batch."""
    first = outcomes[0]
    single = len(outcomes) == 1
    out_latent = {key: value for key, value in latent.items() if key != "batch_index" or not batch}
    out_latent["samples"] = join([o.latent for o in outcomes])
    if batch and latent.get("noise_mask") is not None:
        rows = [row for row, o in enumerate(outcomes) for _ in range(o.latent.shape[0])]
        out_latent["noise_mask"] = mask_rows(latent["noise_mask"], rows, latent["samples"])
    noise = first.noise if single else BatchNoise([o.noise for o in outcomes], [o.sigmas for o in outcomes])
    reports = [report_text(o.report) for o in outcomes]
    recipes = [json.loads(o.recipe.to_json()) for o in outcomes]
    return io.NodeOutput(
        first.images if single else torch.cat([o.images for o in outcomes]), out_latent, noise, first.sigmas, first.seed,
        sum(o.score for o in outcomes) / len(outcomes),
        json.dumps(recipes[0] if single else recipes),
        reports[0] if single else f"[{', '.join(reports)}]",
        torch.cat([o.plot for o in outcomes]),
    )  # fmt: skip


def baseline(graph: SamplingInputs) -> Recipe:
    """Return candidate 0's recipe: the user's seed if its stock noise is the connected noise, else that noise."""
    given = pack(graph.given)
    if is_zero(given):
        return Recipe(ZERO, graph.noise.seed)
    if graph.by_stock:
        return Recipe(graph.noise.seed, graph.noise.seed)
    return Recipe(GIVEN, graph.noise.seed)


def check_inputs(sigmas: Tensor, settings: Settings) -> None:
    """Raise a ValueError that names the input for what cannot be searched."""
    check_sigmas(sigmas)
    if settings.budget < 1:
        raise ValueError(f"budget: {settings.budget} whole images pays for no picture: at least 1")
    if settings.keep < 1:
        raise ValueError(f"keep: {settings.keep} pictures cannot be returned: at least 1")
    chosen_recipe(settings.choose)
    if hasattr(settings.held_out, "expensive"):
        raise ValueError(f"held_out: '{settings.held_out.name}' is a cascade, which chooses: connect one of its two verifiers")
    if settings.held_out is not None and Scorer(settings.held_out).asks_people:
        raise ValueError(f"held_out: '{settings.held_out.name}' asks you, and a held-out verifier never chooses: connect another")


def check_sigmas(sigmas: Tensor) -> None:
    """Raise a ValueError if there is no step to sample."""
    if len(sigmas) < 2:
        raise ValueError(f"sigmas: {len(sigmas)} values hold no step (is denoise 0?): give it two or more")


def repaired(guider: Any, latent: dict[str, Any]) -> dict[str, Any]:
    """Return the LATENT with an empty latent's channels fitted to the model, as the stock sampler node does."""
    names = ("downscale_ratio_spacial", "downscale_ratio_temporal")
    code = comfy.sample.fix_empty_latent_channels.__code__
    known = code.co_varnames[: code.co_argcount]
    ratios = {name: latent[name] for name in names if name in latent and name in known}
    samples = comfy.sample.fix_empty_latent_channels(guider.model_patcher, latent["samples"], **ratios)
    out = {key: value for key, value in latent.items() if key not in names}
    return {**out, "samples": samples}


def scorer_for(verifier: Any, skip_errors: bool) -> Scorer:
    """Return a scorer that hears the user's cancel."""
    check = mm.throw_exception_if_processing_interrupted
    return Scorer(verifier, skip_errors=skip_errors, is_interrupt=is_interrupt, check=check)


def is_interrupt(error: BaseException) -> bool:
    """Whether this is the user's cancel."""
    return isinstance(error, mm.InterruptProcessingException)
