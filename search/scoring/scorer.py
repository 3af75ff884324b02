"""Asks the verifier for scores of pictures, runs or both, and keeps watch over what it answers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..base.candidate import Candidate
from ..base.pool import Pool
from ..base.standings import Alone, Running, Standings
from ..base.text import cut
from ..journal.score_cache import ScoreCache
from .verifier_parts import (
    asks_people,
    batches,
    columns_of,
    combine,
    is_paid,
    leaves_of,
    reference_rows,
    running,
    scores_runs,
    stands_alone,
    unique_names,
)

T = TypeVar("T")


class VerifierError(ValueError):
    """A verifier failed, or answered something that is no score; names the verifier and the candidate."""


class Shown(NamedTuple):
    """What parts may be shown of a candidate.

    Attributes:
        candidate: itself.
        images: its pictures (F, H, W, 3); None if no part needs any, or all have scored it.
        latent: its latent (R, ...).
        predictions: pictures (F, H, W, 3) of its predictions, by noise level.
        what: of it is shown, see `entry_name`; None for something whose scores are not written down.
        known: scores from before, by part: of those it is not asked again.
    """

    candidate: Candidate
    images: Any
    latent: Any
    predictions: Mapping[float, Tensor] = {}
    what: Mapping[str, Any] | None = None
    known: Mapping[str, float] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of its pictures."""
        own = 0 if self.images is None else self.images.nbytes
        return own + sum(pictures.nbytes for pictures in self.predictions.values())


class Scorer:
    """Scores candidates, by their pictures or their runs, with every part of a verifier.

    Attributes:
        name: of the verifier, with that of a cascade's dear one.
        verifier: scores every candidate; of a cascade, the cheap one.
        dear: of a cascade, the scorer of its finalists; else None.
        names: unique names of the verifier's parts, the columns of its raw scores.
        calls: pictures scored, one per part and picture.
        scored: candidates scored, every look and draft counted.
        seconds: time spent in verifiers.
        problems: what went wrong and was passed over, in words.
        answered: of those that it was last asked about, by their indices, what each part has said so far.
        book: what it said of candidates before; None if there is no journal. What people said depends on what else they
            were shown, and is not taken from it.
    """

    def __init__(
        self, verifier: Any, *, skip_errors: bool = False,
        is_interrupt: Callable[[BaseException], bool] = lambda error: False, clock: Callable[[], float] = time.perf_counter,
        check: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Prepare a scorer.

        Args:
            verifier: has `name` and `score(images, latents)`; or in its place `score_runs(gaps)`, which needs no picture;
                or `needs_prediction` and `score_pairs(images, predictions)`; or `asks_people` and `begin()`, a sitting with
                `score_set(indices, images)` and `revised()`; perhaps `settle(settled)` and `batch_size`; an ensemble also
                `parts` and `combine(scores)`, a cascade in place of all these `cheap`, `expensive` and `finalists_among(count)`.
            skip_errors: a part that fails gives NaN, and the failure is noted; else it raises.
            is_interrupt: says which exceptions are the user's cancel: those always pass.
            clock: gives seconds.
            check: called before a part is asked; raises if the user cancelled.
        """
        self.name, dear = verifier.name, getattr(verifier, "expensive", None)
        same = {"skip_errors": skip_errors, "is_interrupt": is_interrupt, "clock": clock, "check": check}
        self.dear = None if dear is None else Scorer(dear, **same)
        self.finalists_among: Callable[[int], int] = getattr(verifier, "finalists_among", lambda count: count)
        self.verifier = verifier if dear is None else verifier.cheap
        self._leaves = [leaf.begin() if asks_people(leaf) else leaf for leaf in leaves_of(self.verifier)]
        self.names = unique_names([leaf.name for leaf in self._leaves])
        for name, leaf in zip(self.names, self._leaves, strict=True):
            if asks_people(leaf):
                leaf.report_failures(partial(self._failed, f"verifier '{name}' could not be helped by its assistant"))
        self._skip = skip_errors
        self._is_interrupt, self._clock, self._check = is_interrupt, clock, check
        self.calls, self.scored, self.seconds = 0, 0, 0.0
        self.problems: list[str] = []
        self.book: ScoreCache | None = None
        self.answered: dict[int, dict[str, float]] = {}
        self._first: dict[int, Tensor] = {}  # raw scores (V,) of the first candidates, if a scale is set by them
        self._scale = 0  # how often those changed
        self._wanted = reference_rows(self.verifier)

    def connect(self, recall: Callable[[int], Tensor | None], finishing: Callable[[], bool]) -> None:
        """Let those who ask people see earlier candidates again, and know when the user ends the search; see `Sitting`."""
        for sitting in self.sittings.values():
            sitting.connect(recall, finishing)

    def finalists_wanted(self, count: int) -> int:
        """Return how many of `count` finished candidates are asked about again at the end of the search."""
        return getattr(self.verifier, "finalists", 0) if self.dear is None else self.finalists_among(count)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of what is done meanwhile as spent in verifiers."""
        started = self._clock()
        try:
            yield
        finally:
            self.seconds += self._clock() - started

    @property
    def trusts_previews(self) -> bool:
        """Whether every part may be asked for half-denoised pictures."""
        return all(getattr(leaf, "trusts_previews", True) for leaf in self._leaves)

    @property
    def parts(self) -> tuple[Any, ...]:
        """What scores every candidate."""
        return tuple(self._leaves)

    @property
    def knows_scores(self) -> bool:
        """Whether it scored candidates of an earlier search with the same journal."""
        return self.book is not None and self.book.used

    @property
    def notes(self) -> list[str]:
        """What the parts assumed, those of a cascade's dear scorer too, in words."""
        own = [note for leaf in self._leaves for note in getattr(leaf, "notes", ())]
        return list(dict.fromkeys([*own, *([] if self.dear is None else self.dear.notes)]))

    @property
    def sittings(self) -> dict[str, Any]:
        """What asks people, by the parts' names; what a cascade's dear scorer asks is "finalists: ..."."""
        named = zip(self.names, self._leaves, strict=True)
        dear = {} if self.dear is None else self.dear.sittings
        own = {name: leaf for name, leaf in named if asks_people(leaf)}
        return own | {f"finalists: {name}": leaf for name, leaf in dear.items()}

    @property
    def asks_people(self) -> bool:
        """Whether any part asks people about every candidate."""
        return any(map(asks_people, self._leaves))

    @property
    def set_size(self) -> int:
        """Most pictures that a person is shown side by side; 0 if nobody is asked."""
        return max((leaf.set_size for leaf in self._leaves if asks_people(leaf)), default=0)

    @property
    def batch_size(self) -> int:
        """Most pictures that any part answers at once."""
        return max(getattr(leaf, "batch_size", 1) for leaf in self._leaves)

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
        return not all(map(scores_runs, self._leaves))

    @property
    def needs_gaps(self) -> str:
        """Name of the first part that scores runs by their guidance gaps; empty if none does."""
        own = next((name for leaf, name in zip(self._leaves, self.names, strict=True) if scores_runs(leaf)), "")
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
        pictures: Sequence[Tensor | None] = images if self.needs_pictures else [None] * len(candidates)
        predictions = predictions or [{}] * len(candidates)
        raw = self.ask([Shown(*one) for one in zip(candidates, pictures, latents, predictions, strict=True)])
        self.enter(candidates, raw)
        return raw

    def ask(self, shown: Sequence[Shown]) -> Tensor:
        """Return raw scores (n, V), float32, without counting the candidates among the scored.

        What is known is taken; what a part says is written down as it says it.

        Raises:
            VerifierError: see `score`.
        """
        if not shown:
            return torch.empty(0, len(self.names))
        started, waited = self._clock(), self.waited
        self.answered = {one.candidate.index: dict(one.known) for one in shown}
        columns = [self._column(leaf, name, shown) for leaf, name in zip(self._leaves, self.names, strict=True)]
        self.seconds += self._clock() - started - (self.waited - waited)
        return torch.stack(columns, dim=1)

    def forget_answers(self) -> None:
        """Start anew to note what parts say; see `answered`."""
        self.answered = {}

    def enter(self, candidates: Sequence[Candidate], raw: Tensor) -> None:
        """Count candidates with their raw scores (n, V) among the scored: the first of a search may set a scale."""
        self.scored += len(candidates)
        for candidate, row in zip(candidates, raw, strict=True):
            if len(self._first) < self._wanted and candidate.index not in self._first and bool(row.isfinite().all()):
                self._first[candidate.index] = row.clone()
                self._scale += 1

    def known(self, candidate: Candidate, what: Mapping[str, Any]) -> dict[str, float]:
        """Return the scores of a candidate that are known from before, by part; `what`: see `entry_name`."""
        return {} if self._scores is None else self._scores.get(candidate.recipe, what)

    def asks_about(self, known: Mapping[str, float]) -> bool:
        """Whether a part has not scored yet what has the scores that are `known`."""
        return any(name not in known for name in self.names)

    def settled(self, what: Mapping[str, Any], measure: Callable[[], T], *of: Candidate) -> T:
        """Return what was measured of candidates when they were first searched for; measure it now if that is not known."""
        return measure() if self.book is None else self.book.settled(what, measure, *(candidate.recipe for candidate in of))

    def revise(self, pool: Pool) -> None:
        """Bring the raw scores of a pool up to date where new answers changed earlier ones."""
        for column, leaf in enumerate(self._leaves):
            if not asks_people(leaf):
                continue
            revised = leaf.revised()
            pool.revise(column, revised)
            for index, row in self._first.items():
                row[column] = revised.get(index, row[column])
            self._scale += bool(self._first)

    def pool(self, discards: Callable[[], int] = lambda: 0) -> Pool:
        """Return an empty pool of candidates that it scores; `discards` counts those that the user discarded."""
        return Pool(self.combine, self.names, self._standings, lambda: (self._scale, discards()))

    def combine(self, raw: Tensor) -> Tensor:
        """Return combined scores (N,) of raw ones (N, V); NaN where there is none."""
        combined = combine(self.verifier, raw, self._reference(raw), 0)[0]
        return torch.where(torch.isfinite(combined), combined, torch.nan)

    def _standings(self) -> Standings | None:
        """Return what combines scores a candidate at a time, by the scales so far; None where all are combined anew."""
        if stands_alone(self.verifier):
            return Alone(self.combine)
        ranks = running(self.verifier)
        return None if ranks is None else Running(ranks, lambda raw: columns_of(self.verifier, raw, self._reference(raw)))

    def _reference(self, raw: Tensor) -> Tensor:
        """Return the raw scores (K, V) of the candidates that set a scale."""
        return torch.stack(list(self._first.values())) if self._first else raw[:0]

    @property
    def _scores(self) -> ScoreCache | None:
        """What scores are taken from and written to."""
        return None if self.asks_people else self.book

    def _column(self, leaf: Any, name: str, shown: Sequence[Shown]) -> Tensor:
        """Return one part's scores (n,), NaN where it failed and failures are skipped."""
        if asks_people(leaf):  # nobody is asked twice, and that nobody is there is no failure of a picture
            self.calls += len(shown)
            return leaf.score_set([one.candidate.index for one in shown], [one.images for one in shown])
        new = [one for one in shown if name not in one.known]
        sizes = [1 if one.images is None else one.images.shape[0] for one in new]
        answers = iter([score for batch in batches(leaf, sizes) for score in self._answers(leaf, name, [new[i] for i in batch])])
        column = [one.known[name] if name in one.known else next(answers) for one in shown]
        return torch.tensor(column, dtype=torch.float32)

    def _answers(self, leaf: Any, name: str, shown: Sequence[Shown]) -> list[float]:
        """Return what a part says of candidates that it is asked about together, and write it down."""
        if len(shown) == 1:
            scores = self._ask_one(leaf, name, shown[0])
        else:
            try:
                scores = self._ask(leaf, name, shown)
            except Exception as error:  # asked again one by one, so that the candidate it fails on is known
                if self._is_interrupt(error):
                    raise
                return [score for one in shown for score in self._answers(leaf, name, [one])]
        answers = scores.tolist()
        for one, score in zip(shown, answers, strict=True):
            self.answered[one.candidate.index][name] = score
        told = [(o.candidate.recipe, o.what, score) for o, score in zip(shown, answers, strict=True) if o.what is not None]
        if self._scores is not None and told:
            self._scores.put(name, told, at_once=is_paid(leaf))
        return answers

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
        self.note_problem(said)

    def _ask(self, leaf: Any, name: str, shown: Sequence[Shown]) -> Tensor:
        """Return a part's scores (n,), float32: means over the frames of each candidate, NaN for what is no number."""
        self._check()
        if hasattr(leaf, "settle"):
            leaf.settle(partial(self.settled, {"verifier": name}))
        runs = scores_runs(leaf)
        counts, what = ([1] * len(shown), "runs") if runs else ([one.images.shape[0] for one in shown], "pictures")
        if runs:
            scores = leaf.score_runs([list(one.candidate.gaps) for one in shown])
        elif hasattr(leaf, "needs_prediction"):
            promised = _joined([_promised(one, leaf.needs_prediction) for one in shown])
            scores = leaf.score_pairs(_joined([one.images for one in shown]), promised)
        else:
            plain = all(isinstance(one.latent, Tensor) and one.latent.shape[0] == one.images.shape[0] for one in shown)
            latents = torch.cat([one.latent for one in shown]) if plain else None
            scores = leaf.score(_joined([one.images for one in shown]), latents)
        if not isinstance(scores, Tensor) or scores.shape != (sum(counts),):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"it must return one score for each of {sum(counts)} {what}, not {got}")
        self.calls += sum(counts) if what == "pictures" else 0
        means = torch.stack([part.mean() for part in scores.detach().float().cpu().split(counts)])
        for one, value in zip(shown, means.tolist(), strict=True):
            if not math.isfinite(value):
                self.note_problem(f"verifier '{name}' returned {value} for candidate {one.candidate.index}: it ranks last")
        return torch.where(torch.isfinite(means), means, torch.nan)

    def note_problem(self, said: str) -> None:
        """Note what went wrong and was passed over, in words, once."""
        if said not in self.problems:
            self.problems.append(said)


def _joined(pictures: Sequence[Tensor]) -> Tensor:
    """Return the pictures (B, H, W, 3) of some candidates as one tensor; those of one are not copied."""
    return pictures[0] if len(pictures) == 1 else torch.cat(list(pictures))


def _promised(one: Shown, level: float) -> Tensor:
    """Return the pictures (F, H, W, 3) that a candidate promised at a noise level."""
    if level not in one.predictions:
        raise ValueError(
            f"its run made no model call at or above the noise level {level:g}, or did not come to its end, so that there "
            "is no prediction to compare with: this verifier judges whole runs that start above its 'sigma'"
        )
    return one.predictions[level]
