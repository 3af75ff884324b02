"""Asks the verifier for scores of pictures, runs or both, and keeps watch over what it answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from .candidates import Candidate, Pool
from .scorebook import ScoreBook
from .words import cut

T = TypeVar("T")


class VerifierError(ValueError):
    """A verifier failed, or answered something that is no score; names the verifier and the candidate."""


class Shown(NamedTuple):
    """What parts may be shown of a candidate.

    Attributes:
        candidate: itself.
        images: its pictures (F, H, W, 3); None if no part needs any.
        latent: its latent (R, ...).
        predictions: pictures (F, H, W, 3) of its predictions, by noise level.
    """

    candidate: Candidate
    images: Any
    latent: Any
    predictions: Mapping[float, Tensor]


class Judge:
    """Scores candidates, by their pictures or their runs, with every part of a verifier.

    Attributes:
        name: of the verifier, with that of a cascade's dear one.
        verifier: scores every candidate; of a cascade, the cheap one.
        dear: of a cascade, the judge of its finalists; else None.
        names: unique names of the verifier's parts, the columns of its raw scores.
        calls: pictures scored, one per part and picture.
        scored: candidates scored, every look and draft counted.
        seconds: time spent in verifiers.
        problems: what went wrong and was passed over, in words.
        book: what it said of candidates before; None if there is no journal. What people said depends on what else they
            were shown, and is not taken from it.
    """

    def __init__(
        self, verifier: Any, *, skip_errors: bool = False,
        is_interrupt: Callable[[BaseException], bool] = lambda error: False, clock: Callable[[], float] = time.perf_counter,
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Prepare a judge.

        Args:
            verifier: has `name` and `score(images, latents)`; or in its place `score_runs(gaps)`, which needs no picture;
                or `needs_prediction` and `score_pairs(images, predictions)`; or `asks_people` and `begin()`, a sitting with
                `score_set(indices, images)` and `revised()`; perhaps `settle(settled)`; an ensemble also `parts` and
                `combine(scores)`, a cascade in place of all these `cheap`, `dear` and `finalists_among(count)`.
            skip_errors: a part that fails gives NaN, and the failure is noted; else it raises.
            is_interrupt: says which exceptions are the user's cancel: those always pass.
            clock: gives seconds.
            check: called before a part is asked; raises if the user cancelled.
        """
        self.name, dear = verifier.name, getattr(verifier, "dear", None)
        same = {"skip_errors": skip_errors, "is_interrupt": is_interrupt, "clock": clock, "check": check}
        self.dear = None if dear is None else Judge(dear, **same)
        self.finalists_among: Callable[[int], int] = getattr(verifier, "finalists_among", lambda count: count)
        self.verifier = verifier if dear is None else verifier.cheap
        self._leaves = [leaf.begin() if _asks_people(leaf) else leaf for leaf in _leaves(self.verifier)]
        self.names = _unique([leaf.name for leaf in self._leaves])
        for name, leaf in zip(self.names, self._leaves, strict=True):
            if _asks_people(leaf):
                leaf.failed = partial(self._failed, f"verifier '{name}' could not be helped by its assistant")
        self._skip = skip_errors
        self._is_interrupt, self._clock, self._check = is_interrupt, clock, check
        self.calls, self.scored, self.seconds = 0, 0, 0.0
        self.problems: list[str] = []
        self.book: ScoreBook | None = None
        self._first: dict[int, Tensor] = {}  # raw scores (V,) of the first candidates, if a scale is set by them
        self._wanted = _reference_rows(self.verifier)

    @property
    def trusts_previews(self) -> bool:
        """Whether every part may be asked for half-denoised pictures."""
        return all(getattr(leaf, "trusts_previews", True) for leaf in self._leaves)

    @property
    def sittings(self) -> dict[str, Any]:
        """What asks people, by the parts' names; what a cascade's dear judge asks is "finalists: ..."."""
        named = zip(self.names, self._leaves, strict=True)
        dear = {} if self.dear is None else self.dear.sittings
        own = {name: leaf for name, leaf in named if _asks_people(leaf)}
        return own | {f"finalists: {name}": leaf for name, leaf in dear.items()}

    @property
    def asks_people(self) -> bool:
        """Whether any part asks people about every candidate."""
        return any(map(_asks_people, self._leaves))

    @property
    def set_size(self) -> int:
        """Most pictures that a person is shown side by side; 0 if nobody is asked."""
        return max((leaf.set_size for leaf in self._leaves if _asks_people(leaf)), default=0)

    @property
    def ended(self) -> str:
        """Why the search is to end, in words, because there is nobody to ask; empty if it is not."""
        return next((sitting.stopped for sitting in self.sittings.values() if sitting.stopped), "")

    @property
    def waited(self) -> float:
        """Seconds spent waiting for people."""
        return sum(sitting.waited for sitting in self.sittings.values())

    @property
    def needs_pictures(self) -> bool:
        """Whether any part looks at pictures."""
        return not all(map(_scores_runs, self._leaves))

    @property
    def needs_gaps(self) -> str:
        """Name of the first part that scores runs by their guidance gaps; empty if none does."""
        own = next((name for leaf, name in zip(self._leaves, self.names, strict=True) if _scores_runs(leaf)), "")
        return own or ("" if self.dear is None else self.dear.needs_gaps)

    @property
    def needs_predictions(self) -> dict[str, float]:
        """Noise levels of the predictions that parts are given, by the parts' names."""
        named = zip(self.names, self._leaves, strict=True)
        own = {name: leaf.needs_prediction for name, leaf in named if hasattr(leaf, "needs_prediction")}
        return own if self.dear is None else {**self.dear.needs_predictions, **own}

    def score(
        self, candidates: Sequence[Candidate], images: Sequence[Tensor], latents: Sequence[Any],
        predictions: Sequence[Mapping[float, Tensor]] = (),
    ) -> Tensor:  # fmt: skip
        """Return raw scores (n, V), float32; a candidate of several frames gets their mean.

        Args:
            candidates: whom the pictures are of.
            images: one (F, H, W, 3) in [0, 1] each; empty if no part needs any.
            latents: one latent (R, ...) each.
            predictions: for each, pictures (F, H, W, 3) of its predictions by noise level; empty if no part needs any.

        Raises:
            VerifierError: a part threw, or returned the wrong number of scores or values that are no numbers.
        """
        raw = self.ask(candidates, images, latents, predictions)
        self.enter(candidates, raw)
        return raw

    def ask(
        self, candidates: Sequence[Candidate], images: Sequence[Tensor], latents: Sequence[Any],
        predictions: Sequence[Mapping[float, Tensor]] = (),
    ) -> Tensor:  # fmt: skip
        """Return what `score` does, without counting the candidates among the scored."""
        if not candidates:
            return torch.empty(0, len(self.names))
        started, waited = self._clock(), self.waited
        images = images if self.needs_pictures else [None] * len(candidates)
        shown = [Shown(*one) for one in zip(candidates, images, latents, predictions or [{}] * len(candidates), strict=True)]
        columns = [self._column(leaf, name, shown) for leaf, name in zip(self._leaves, self.names, strict=True)]
        self.seconds += self._clock() - started - (self.waited - waited)
        return torch.stack(columns, dim=1)

    def enter(self, candidates: Sequence[Candidate], raw: Tensor) -> None:
        """Count candidates with their raw scores (n, V) among the scored: the first of a search may set a scale."""
        self.scored += len(candidates)
        for candidate, row in zip(candidates, raw, strict=True):
            if len(self._first) < self._wanted and bool(row.isfinite().all()):
                self._first.setdefault(candidate.index, row)

    def recalled(self, candidates: Sequence[Candidate], what: Mapping[str, Any]) -> list[Tensor | None]:
        """Return for each candidate the raw scores (V,) that are known from before, or None; `what`: see `entry_name`."""
        return [None if self._scores is None else self._scores.get(c.recipe, what) for c in candidates]

    def merged(
        self, candidates: Sequence[Candidate], what: Mapping[str, Any], known: Sequence[Tensor | None], new: Tensor
    ) -> Tensor:
        """Return the raw scores (n, V) of candidates, those that were known and the `new` ones (m, V), and remember all."""
        if self._scores is not None:
            asked = [c for c, row in zip(candidates, known, strict=True) if row is None]
            for candidate, row in zip(asked, new.tolist(), strict=True):
                self._scores.put(candidate.recipe, what, row)
        rows = iter(new)
        raw = torch.stack([next(rows) if row is None else row for row in known])
        self.enter(candidates, raw)
        return raw

    def settled(self, what: Mapping[str, Any], measure: Callable[[], T], *of: Candidate) -> T:
        """Return what was measured of candidates when they were first searched for; measure it now if that is not known."""
        return measure() if self.book is None else self.book.settled(what, measure, *(candidate.recipe for candidate in of))

    def revise(self, pool: Pool) -> None:
        """Bring the raw scores of a pool up to date where new answers changed earlier ones."""
        for column, leaf in enumerate(self._leaves):
            if not _asks_people(leaf):
                continue
            revised = leaf.revised()
            pool.revise(column, revised)
            for index, row in self._first.items():
                row[column] = revised.get(index, row[column])

    def combine(self, raw: Tensor) -> Tensor:
        """Return combined scores (N,) of raw ones (N, V); NaN where there is none."""
        first = torch.stack(list(self._first.values())) if self._first else raw[:0]
        combined = _combine(self.verifier, raw, first, 0)[0]
        return torch.where(torch.isfinite(combined), combined, torch.nan)

    @property
    def _scores(self) -> ScoreBook | None:
        """What scores are taken from and written to."""
        return None if self.asks_people else self.book

    def _column(self, leaf: Any, name: str, shown: Sequence[Shown]) -> Tensor:
        """Return one part's scores (n,), NaN where it failed and failures are skipped."""
        if _asks_people(leaf):  # nobody is asked twice, and that nobody is there is no failure of a picture
            self.calls += len(shown)
            return leaf.score_set([one.candidate.index for one in shown], [one.images for one in shown])
        if len(shown) > 1:
            try:
                return self._ask(leaf, name, shown)
            except Exception as error:  # asked again one by one, so that the candidate it fails on is known
                if self._is_interrupt(error):
                    raise
        return torch.cat([self._ask_one(leaf, name, one) for one in shown])

    def _ask_one(self, leaf: Any, name: str, one: Shown) -> Tensor:
        try:
            return self._ask(leaf, name, [one])
        except Exception as error:
            self._failed(f"verifier '{name}' failed on candidate {one.candidate.index}", error)
            return torch.tensor([math.nan])

    def _failed(self, what: str, error: Exception) -> None:
        """Note a failure, or raise it if failures are not skipped."""
        if self._is_interrupt(error):
            raise error
        said = f"{what}: {cut(f'{type(error).__name__}: {error}')}"
        if not self._skip:
            raise VerifierError(f"{said} (set on_verifier_error to 'skip' to go on without it)") from error
        self._note(said)

    def _ask(self, leaf: Any, name: str, shown: Sequence[Shown]) -> Tensor:
        """Return a part's scores (n,), float32: means over the frames of each candidate, NaN for what is no number."""
        self._check()
        if hasattr(leaf, "settle"):
            leaf.settle(partial(self.settled, {"verifier": name}))
        runs = _scores_runs(leaf)
        counts, what = ([1] * len(shown), "runs") if runs else ([one.images.shape[0] for one in shown], "pictures")
        if runs:
            scores = leaf.score_runs([list(one.candidate.gaps) for one in shown])
        elif hasattr(leaf, "needs_prediction"):
            promised = torch.cat([_promised(one, leaf.needs_prediction) for one in shown])
            scores = leaf.score_pairs(torch.cat([one.images for one in shown]), promised)
        else:
            plain = all(isinstance(one.latent, Tensor) and one.latent.shape[0] == one.images.shape[0] for one in shown)
            latents = torch.cat([one.latent for one in shown]) if plain else None
            scores = leaf.score(torch.cat([one.images for one in shown]), latents)
        if not isinstance(scores, Tensor) or scores.shape != (sum(counts),):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"it must return one score for each of {sum(counts)} {what}, not {got}")
        self.calls += sum(counts) if what == "pictures" else 0
        means = torch.stack([part.mean() for part in scores.detach().float().cpu().split(counts)])
        for one, value in zip(shown, means.tolist(), strict=True):
            if not math.isfinite(value):
                self._note(f"verifier '{name}' returned {value} for candidate {one.candidate.index}: it ranks last")
        return torch.where(torch.isfinite(means), means, torch.nan)

    def _note(self, said: str) -> None:
        if said not in self.problems:
            self.problems.append(said)


def _promised(one: Shown, level: float) -> Tensor:
    """Return the pictures (F, H, W, 3) that a candidate promised at a noise level."""
    if level not in one.predictions:
        raise ValueError(
            f"its run made no model call at or above the noise level {level:g}, or did not come to its end, so that there "
            "is no prediction to compare with: this verifier judges whole runs that start above its 'sigma'"
        )
    return one.predictions[level]


def _leaves(verifier: Any) -> list[Any]:
    parts = getattr(verifier, "parts", None)
    return [verifier] if parts is None else [leaf for part in parts for leaf in _leaves(part)]


def _asks_people(leaf: Any) -> bool:
    return getattr(leaf, "asks_people", False)


def _scores_runs(leaf: Any) -> bool:
    return hasattr(leaf, "score_runs")


def _unique(names: Sequence[str]) -> list[str]:
    out: dict[str, None] = {}
    following: dict[str, int] = {}
    for name in names:
        unique, count = name, following.get(name, 2)
        while unique in out:
            unique, count = f"{name} {count}", count + 1
        out[unique], following[name] = None, count
    return list(out)


def _reference_rows(verifier: Any) -> int:
    parts = getattr(verifier, "parts", None) or ()
    return max([getattr(verifier, "reference_rows", 0), *map(_reference_rows, parts)])


def _combine(verifier: Any, raw: Tensor, reference: Tensor, at: int) -> tuple[Tensor, int]:
    """Combine the columns of `raw` (N, V) from `at` on that belong to `verifier`; return (scores, next column).

    `reference` (K, V): raw scores of the search's first candidates, for what sets its scales by them.
    """
    if getattr(verifier, "parts", None) is None:
        return raw[:, at], at + 1
    columns, following = _columns(verifier, raw, reference, at)
    if not getattr(verifier, "reference_rows", 0):
        return verifier.combine(columns), following
    return verifier.combine(columns, _columns(verifier, reference, reference, at)[0]), following


def _columns(ensemble: Any, raw: Tensor, reference: Tensor, at: int) -> tuple[Tensor, int]:
    """Return the combined scores (N, parts) of an ensemble's parts, and the next column."""
    columns = []
    for part in ensemble.parts:
        column, at = _combine(part, raw, reference, at)
        columns.append(column)
    return torch.stack(columns, dim=1), at
