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
from ..base.verifier_kinds import ComparisonSession, Group, Leaf, cascade_of, comparing, leaves_of, parts_of
from ..journal.score_cache import ScoreCache
from .verifier_parts import batches, columns_of, combine, reference_rows, running, stands_alone

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
        comparing: the verifier, if it compares the best of a pool; else None.
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
            verifier: of one of the kinds in `base.verifier_kinds`; which, is found out now.
            skip_errors: a part that fails gives NaN, and the failure is noted; else it raises.
            is_interrupt: says which exceptions are the user's cancel: those always pass.
            clock: gives seconds.
            check: called before a part is asked; raises if the user cancelled.
        """
        self.name, cascade = verifier.name, cascade_of(verifier)
        same = {"skip_errors": skip_errors, "is_interrupt": is_interrupt, "clock": clock, "check": check}
        self.dear = None if cascade is None else Scorer(cascade.expensive, **same)
        self.finalists_among: Callable[[int], int] = (lambda count: count) if cascade is None else cascade.finalists_among
        self.verifier = verifier if cascade is None else cascade.cheap
        self._whole, self.comparing = parts_of(self.verifier), comparing(self.verifier)
        self._leaves = leaves_of(self._whole)
        self.names = [leaf.name for leaf in self._leaves]
        for leaf in self._leaves:
            if leaf.sitting is not None:
                failed = partial(self._failed, f"verifier '{leaf.name}' could not be helped by its assistant")
                leaf.sitting.report_failures(failed)
        self._skip = skip_errors
        self._is_interrupt, self._clock, self._check = is_interrupt, clock, check
        self.calls, self.scored, self.seconds = 0, 0, 0.0
        self.problems: list[str] = []
        self.book: ScoreCache | None = None
        self.answered: dict[int, dict[str, float]] = {}
        self._first: dict[int, Tensor] = {}  # raw scores (V,) of the first candidates, if a scale is set by them
        self._scale = 0  # how often those changed
        self._wanted = reference_rows(self._whole)

    def connect(self, recall: Callable[[int], Tensor | None], finishing: Callable[[], bool]) -> None:
        """Let those who ask people see earlier candidates again, and know when the user ends the search."""
        for sitting in self.sittings.values():
            sitting.connect(recall, finishing)

    def finalists_wanted(self, count: int) -> int:
        """Return how many of `count` finished candidates are asked about again at the end of the search."""
        if self.dear is not None:
            return self.finalists_among(count)
        return 0 if self.comparing is None else self.comparing.finalists

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
        return all(leaf.trusts_previews for leaf in self._leaves)

    @property
    def parts(self) -> tuple[Any, ...]:
        """What scores every candidate."""
        return tuple(leaf.verifier for leaf in self._leaves)

    @property
    def knows_scores(self) -> bool:
        """Whether it scored candidates of an earlier search with the same journal."""
        return self.book is not None and self.book.used

    @property
    def notes(self) -> list[str]:
        """What the parts assumed, those of a cascade's dear scorer too, in words."""
        own = [note for leaf in self._leaves for note in leaf.notes]
        return list(dict.fromkeys([*own, *([] if self.dear is None else self.dear.notes)]))

    @property
    def sittings(self) -> dict[str, ComparisonSession]:
        """What asks people, by the parts' names; what a cascade's dear scorer asks is "finalists: ..."."""
        dear = {} if self.dear is None else self.dear.sittings
        own = {leaf.name: leaf.sitting for leaf in self._leaves if leaf.sitting is not None}
        return own | {f"finalists: {name}": leaf for name, leaf in dear.items()}

    @property
    def asks_people(self) -> bool:
        """Whether any part asks people about every candidate."""
        return any(leaf.sitting is not None for leaf in self._leaves)

    @property
    def set_size(self) -> int:
        """Most pictures that a person is shown side by side; 0 if nobody is asked."""
        return max((leaf.sitting.set_size for leaf in self._leaves if leaf.sitting is not None), default=0)

    @property
    def batch_size(self) -> int:
        """Most pictures that any part answers at once."""
        return max(leaf.batch_size for leaf in self._leaves)

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
        return not all(leaf.runs is not None for leaf in self._leaves)

    @property
    def needs_gaps(self) -> str:
        """Name of the first part that scores runs by their guidance gaps; empty if none does."""
        own = next((leaf.name for leaf in self._leaves if leaf.runs is not None), "")
        return own or ("" if self.dear is None else self.dear.needs_gaps)

    @property
    def needs_predictions(self) -> dict[str, float]:
        """Noise levels of the predictions that parts are given, by the parts' names."""
        own = {leaf.name: leaf.pairs.needs_prediction for leaf in self._leaves if leaf.pairs is not None}
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
        columns = [self._column(leaf, shown) for leaf in self._leaves]
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
            if leaf.sitting is None:
                continue
            revised = leaf.sitting.revised()
            pool.revise(column, revised)
            for index, row in self._first.items():
                row[column] = revised.get(index, row[column])
            self._scale += bool(self._first)

    def pool(self, discards: Callable[[], int] = lambda: 0) -> Pool:
        """Return an empty pool of candidates that it scores; `discards` counts those that the user discarded."""
        return Pool(self.combine, self.names, self._standings, lambda: (self._scale, discards()))

    def combine(self, raw: Tensor) -> Tensor:
        """Return combined scores (N,) of raw ones (N, V); NaN where there is none."""
        combined = combine(self._whole, raw, self._reference(raw), 0)[0]
        return torch.where(torch.isfinite(combined), combined, torch.nan)

    def _standings(self) -> Standings | None:
        """Return what combines scores a candidate at a time, by the scales so far; None where all are combined anew."""
        whole = self._whole
        if stands_alone(whole) or not isinstance(whole, Group):
            return Alone(self.combine)
        ranks = running(whole)
        return None if ranks is None else Running(ranks, lambda raw: columns_of(whole, raw, self._reference(raw)))

    def _reference(self, raw: Tensor) -> Tensor:
        """Return the raw scores (K, V) of the candidates that set a scale."""
        return torch.stack(list(self._first.values())) if self._first else raw[:0]

    @property
    def _scores(self) -> ScoreCache | None:
        """What scores are taken from and written to."""
        return None if self.asks_people else self.book

    def _column(self, leaf: Leaf, shown: Sequence[Shown]) -> Tensor:
        """Return one part's scores (n,), NaN where it failed and failures are skipped."""
        if leaf.sitting is not None:  # nobody is asked twice, and that nobody is there is no failure of a picture
            self.calls += len(shown)
            return leaf.sitting.score_set([one.candidate.index for one in shown], [one.images for one in shown])
        name = leaf.name
        new = [one for one in shown if name not in one.known]
        sizes = [1 if one.images is None else one.images.shape[0] for one in new]
        answers = iter([score for batch in batches(leaf, sizes) for score in self._answers(leaf, [new[i] for i in batch])])
        column = [one.known[name] if name in one.known else next(answers) for one in shown]
        return torch.tensor(column, dtype=torch.float32)

    def _answers(self, leaf: Leaf, shown: Sequence[Shown]) -> list[float]:
        """Return what a part says of candidates that it is asked about together, and write it down."""
        if len(shown) == 1:
            scores = self._ask_one(leaf, shown[0])
        else:
            try:
                scores = self._ask(leaf, shown)
            except Exception as error:  # asked again one by one, so that the candidate it fails on is known
                if self._is_interrupt(error):
                    raise
                return [score for one in shown for score in self._answers(leaf, [one])]
        answers = scores.tolist()
        for one, score in zip(shown, answers, strict=True):
            self.answered[one.candidate.index][leaf.name] = score
        told = [(o.candidate.recipe, o.what, score) for o, score in zip(shown, answers, strict=True) if o.what is not None]
        if self._scores is not None and told:
            self._scores.put(leaf.name, told, at_once=leaf.is_paid)
        return answers

    def _ask_one(self, leaf: Leaf, one: Shown) -> Tensor:
        try:
            return self._ask(leaf, [one])
        except Exception as error:
            self._failed(f"verifier '{leaf.name}' failed on candidate {one.candidate.index}", error)
            return torch.tensor([math.nan])

    def _failed(self, what: str, error: Exception) -> None:
        """Note a failure, or raise it if failures are not skipped."""
        if self._is_interrupt(error):
            raise error
        said = f"{what}: {cut(f'{type(error).__name__}: {error}')}"
        if not self._skip:
            raise VerifierError(f"{said} (set on_verifier_error to 'skip' to go on without it)") from error
        self.note_problem(said)

    def _ask(self, leaf: Leaf, shown: Sequence[Shown]) -> Tensor:
        """Return a part's scores (n,), float32: means over the frames of each candidate, NaN for what is no number."""
        self._check()
        if leaf.settles is not None:
            leaf.settles.settle(partial(self.settled, {"verifier": leaf.name}))
        runs = leaf.runs is not None
        counts, what = ([1] * len(shown), "runs") if runs else ([one.images.shape[0] for one in shown], "pictures")
        if leaf.runs is not None:
            scores = leaf.runs.score_runs([list(one.candidate.gaps) for one in shown])
        elif leaf.pairs is not None:
            promised = _joined([_promised(one, leaf.pairs.needs_prediction) for one in shown])
            scores = leaf.pairs.score_pairs(_joined([one.images for one in shown]), promised)
        else:
            plain = all(isinstance(one.latent, Tensor) and one.latent.shape[0] == one.images.shape[0] for one in shown)
            latents = torch.cat([one.latent for one in shown]) if plain else None
            scores = leaf.verifier.score(_joined([one.images for one in shown]), latents)
        if not isinstance(scores, Tensor) or scores.shape != (sum(counts),):
            got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"it must return one score for each of {sum(counts)} {what}, not {got}")
        self.calls += sum(counts) if what == "pictures" else 0
        means = torch.stack([part.mean() for part in scores.detach().float().cpu().split(counts)])
        for one, value in zip(shown, means.tolist(), strict=True):
            if not math.isfinite(value):
                self.note_problem(f"verifier '{leaf.name}' returned {value} for candidate {one.candidate.index}: it ranks last")
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
