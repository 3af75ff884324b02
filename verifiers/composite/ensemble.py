"""Ensembles: several verifiers, one order.

Verifiers have scales of their own, so their scores cannot simply be added. `rank mean` is the seed paper's
answer: rank all candidates so far under each verifier and take the mean of the ranks. It rewards what every
verifier likes and is hard to hack, at the price that a candidate's combined score changes when the pool
grows: hence `combine`, apart from `score`.

References:
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025),
    arXiv 2501.09732
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..common.base import Verifier, VerifierCascade, check_images, check_scores
from ..common.features import share

RANK_MEAN, Z_SCORE, WEIGHTED_SUM, GATE, CALIBRATED = MODES = (
    "rank mean", "z-score", "weighted sum", "gate", "calibrated sum",
)  # fmt: skip
MANY = 256  # rows that are sorted together, not put in one by one
MAX_SIZE = 128  # verifiers in all; eight ensembles of eight are 72


def tied_ranks(values: Tensor) -> Tensor:
    """Rank each column of (N, V): 1 for the lowest, N for the highest; ties share their mean rank."""
    columns = values.T.contiguous()
    ordered = columns.sort(1).values
    below = torch.searchsorted(ordered, columns)
    not_above = torch.searchsorted(ordered, columns, right=True)
    return ((below + not_above + 1).to(values.dtype) / 2).T.contiguous()


def z_scores(values: Tensor, reference: Tensor | None = None) -> Tensor:
    """Standardize each column of (N, V), by mean and population deviation of the column itself or of `reference` (K, V).

    A column without spread there gives 0.
    """
    known = values if reference is None else reference
    flat = known.amax(0) == known.amin(0)
    z = (values - known.mean(0)) / known.std(0, correction=0)
    return z.masked_fill(flat, 0)


def rank_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the ranks of (N, V): (N,), 1 to N; a weight below 0 turns its column."""
    return tied_ranks(values * weights.sign()) @ weights.abs() / weights.abs().sum()


class RunningRanks:
    """The rank means of rows that are added to: what `rank_mean` gives of all rows so far, for one row at a time.

    Columns are kept sorted, so that a row costs V log N comparisons. A row with a value that is not finite has -inf, and the
    others are ranked as if it were not there.

    Attributes:
        rise: the most that a row's score rises when another is added.
    """

    rise = 1.0

    def __init__(self, weights: Sequence[float]) -> None:
        """Start without rows; one weight for each column, below 0 to turn it."""
        self._signs = [math.copysign(1.0, weight) if weight else 0.0 for weight in weights]
        self._weights = [abs(weight) for weight in weights]
        self._total = math.fsum(self._weights)
        self._sorted = [array("d") for _ in weights]
        self._rows: list[tuple[float, ...] | None] = []

    def add(self, scores: Tensor) -> None:
        """Add rows (n, V)."""
        usable = []
        for row in scores.double().tolist():
            known = all(map(math.isfinite, row))
            self._rows.append(tuple(value * sign for value, sign in zip(row, self._signs, strict=True)) if known else None)
            usable += [self._rows[-1]] if known else []
        for place, column in enumerate(self._sorted):
            new = [row[place] for row in usable]
            if len(new) < MANY:
                for value in new:
                    insort(column, value)
            else:
                self._sorted[place] = array("d", sorted([*column, *new]))

    def score(self, place: int) -> float:
        """Return the score of the row that was added after `place` others, among all so far; not rounded to float32."""
        row = self._rows[place]
        if row is None:
            return -math.inf
        columns = zip(self._sorted, row, self._weights, strict=True)
        ranks = (weight * ((bisect_left(c, value) + bisect_right(c, value) + 1) / 2) for c, value, weight in columns)
        return sum(ranks) / self._total


@dataclass(frozen=True)
class Ensemble:
    """Several verifiers combined.

    With N candidates so far, of which `combine` is given all part scores, the combined score is

    - "rank mean": the weighted mean of the tie-averaged ranks, 1 (worst) to N (best under every part);
    - "z-score": the sum of weight times z-score, 0 where a part does not tell candidates apart;
    - "weighted sum": the sum of weight times score, independent of the pool;
    - "gate": candidates whose scores reach all thresholds in `gates` come first, by the rank mean of
      the other parts among them (1 and up); the rest follow (0 and down), by the rank mean of the gates;
    - "calibrated sum": the sum of weight times z-score by mean and deviation of the first `calibrate_on`
      candidates of the search, 0 where a part does not tell those apart. Once they are there, no score
      changes any more: scores of all rounds, looks and drafts are on one scale.

    A weight below zero turns its part around. But for the two sums, the value depends on the pool and only the
    order counts: a target score says little.

    Attributes:
        parts: The verifiers. Names that occur twice get a number ("CLIP score 2").
        weights: One for each part; empty for all 1. A gate's own weight is not used.
        mode: One of `MODES`.
        gates: For "gate", the least score that passes, or None for a part that is no gate; one for each part.
        calibrate_on: For "calibrated sum", how many candidates set the scales; 2 or more.
        check: Called before each part is asked; raises if the user cancelled.

    Raises:
        ValueError: For no part, more than `MAX_SIZE` verifiers with those of its ensembles, a cascade among them, another
            `mode`, or weights, gates or `calibrate_on` that give no order.
    """

    parts: tuple[Verifier, ...]
    weights: tuple[float, ...] = ()
    mode: str = RANK_MEAN
    gates: tuple[float | None, ...] = ()
    name: str = "ensemble"
    calibrate_on: int = 8
    check: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_size()  # first: all that follows takes time by the size
        object.__setattr__(self, "parts", _uniquely_named(self.parts, self.name))
        object.__setattr__(self, "weights", tuple(self.weights) or (1.0,) * len(self.parts))
        object.__setattr__(self, "gates", tuple(self.gates) or (None,) * len(self.parts))
        self._validate()
        object.__setattr__(self, "_sharing", share(leaves_of(self)))

    def _check_size(self) -> None:
        size = size_of(self) - 1
        if size > MAX_SIZE:
            raise ValueError(
                f"{self.name}: {size} verifiers are connected in all, every ensemble and its parts counted as often as they are"
                f" connected; at most {MAX_SIZE}, since each is asked about every picture. Connect a verifier once, with a"
                " larger weight, in place of several times."
            )

    def _validate(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"{self.name}: input 'mode' is {self.mode!r}; choose one of {', '.join(MODES)}.")
        count = len(self.parts)
        if len(self.weights) != count or len(self.gates) != count:
            raise ValueError(
                f"{self.name}: {count} verifiers, {len(self.weights)} weights, {len(self.gates)} gates; give one each."
            )
        used = [weight for weight, gate in zip(self.weights, self._active_gates, strict=True) if gate is None]
        if self.mode == GATE and (not used or len(used) == count):
            raise ValueError(
                f"{self.name}: mode 'gate' has {count - len(used)} gates among {count} verifiers; it needs at"
                " least one gate and one verifier that is none, to rank what passes. Connect another"
                " verifier."
            )
        if not all(math.isfinite(weight) for weight in self.weights) or not any(used):
            raise ValueError(
                f"{self.name}: inputs 'weight_…' are {self.weights}; they must be finite, and not all 0 for"
                " the verifiers that rank. Set at least one to 1."
            )
        if any(gate is not None and math.isnan(gate) for gate in self._active_gates):
            raise ValueError(f"{self.name}: input 'gate_threshold' is NaN; set the least score that passes.")
        if self.calibrate_on < 2:
            raise ValueError(f"{self.name}: input 'calibrate_on' is {self.calibrate_on}; a spread takes 2 candidates. Usual: 8.")
        for part in self.parts:
            if isinstance(part, VerifierCascade):
                raise ValueError(
                    f"{self.name}: {part.name!r} is a cascade, whose second verifier sees finalists only. Connect this"
                    " ensemble to the cascade, not the cascade to the ensemble."
                )

    @property
    def _active_gates(self) -> tuple[float | None, ...]:
        return self.gates if self.mode == GATE else (None,) * len(self.parts)

    @property
    def reference_rows(self) -> int:
        """How many candidates set the scales; 0 in all other modes."""
        return self.calibrate_on if self.mode == CALIBRATED else 0

    @property
    def stands_alone(self) -> bool:
        """Whether a candidate's score does not depend on others, once the scales are set."""
        return self.mode in (WEIGHTED_SUM, CALIBRATED)

    def running(self) -> RunningRanks | None:
        """Return what combines scores that are added to, a candidate at a time; None in a mode that combines them all anew."""
        return RunningRanks(self.weights) if self.mode == RANK_MEAN else None

    @property
    def needs_prompt(self) -> bool:
        return any(part.needs_prompt for part in self.parts)

    @property
    def prompt(self) -> str:
        """The parts' prompts; different ones are joined by " | "."""
        return " | ".join(dict.fromkeys(part.prompt for part in self.parts if part.prompt))

    @property
    def trusts_previews(self) -> bool:
        return all(part.trusts_previews for part in self.parts)

    @property
    def score_range(self) -> tuple[float, float]:
        if self.mode == RANK_MEAN:
            return 1.0, math.inf
        if self.mode != WEIGHTED_SUM:
            return -math.inf, math.inf
        ends = [
            sorted((weight * part.score_range[0], weight * part.score_range[1]))
            for weight, part in zip(self.weights, self.parts, strict=True)
            if weight
        ]
        return sum(low for low, _ in ends), sum(high for _, high in ends)

    def get_models(self) -> list[Any]:
        """Return the model patchers of all parts, for ComfyUI's tracking of models in use."""
        return [model for part in self.parts for model in models_of(part)]

    def combine(self, scores: Tensor, reference: Tensor | None = None) -> Tensor:
        """Combine the parts' scores (N, V) of all candidates so far: (N,) float32, higher is better.

        A candidate with a score that is not finite gets -inf; the others are ranked as if it were not there.

        Args:
            scores: (N, V), one column for each part.
            reference: For "calibrated sum", scores (K, V) of the search's first candidates; without, the first of
                `scores` are taken for them.

        Raises:
            ValueError: If there is not one column for each part.
        """
        if scores.ndim != 2 or scores.shape[1] != len(self.parts):
            raise ValueError(f"{self.name}: part scores have shape {tuple(scores.shape)}; expected (N, {len(self.parts)}).")
        scores = scores.detach().to(device="cpu", dtype=torch.float64)
        usable = scores.isfinite().all(1)
        combined = torch.full((len(scores),), -math.inf)
        if usable.any():
            combined[usable] = self._combined(scores[usable], reference).float()
        return combined

    def _combined(self, scores: Tensor, reference: Tensor | None) -> Tensor:
        """Combine finite scores (N, V), N at least 1: (N,) float64."""
        if self.mode != CALIBRATED:
            return _RULES[self.mode](self, scores)
        known = scores if reference is None or not len(reference) else reference.to(scores)
        return z_scores(scores, known[: self.calibrate_on]) @ torch.tensor(self.weights, dtype=scores.dtype)

    def score(self, images: Tensor, latents: Tensor | None = None) -> Tensor:
        """Score a batch (B, H, W, 3) in [0, 1] as a pool of its own: (B,) float32.

        But for "weighted sum", a row depends on others; a search scores the parts and calls `combine`.
        """
        images = check_images(images, self.name)
        columns = []
        for part in self.parts:
            self.check()
            columns.append(check_scores(part.name, part.score(images, latents=latents), len(images)))
        return self.combine(torch.stack(columns, 1))

    def _rank_mean(self, scores: Tensor) -> Tensor:
        return rank_mean(scores, torch.tensor(self.weights, dtype=scores.dtype))

    def _z_score(self, scores: Tensor) -> Tensor:
        return z_scores(scores) @ torch.tensor(self.weights, dtype=scores.dtype)

    def _weighted_sum(self, scores: Tensor) -> Tensor:
        return scores @ torch.tensor(self.weights, dtype=scores.dtype)

    def _gate(self, scores: Tensor) -> Tensor:
        is_gate = torch.tensor([gate is not None for gate in self.gates])
        least = torch.tensor([gate for gate in self.gates if gate is not None], dtype=scores.dtype)
        weights = torch.tensor(self.weights, dtype=scores.dtype)[~is_gate]
        passes = (scores[:, is_gate] >= least).all(1)
        combined = torch.empty(len(scores), dtype=scores.dtype)
        combined[passes] = rank_mean(scores[passes][:, ~is_gate], weights)
        # Ranks from 1 to the number that fail, shifted to end at 0: below whatever passes.
        fails = scores[~passes][:, is_gate]
        combined[~passes] = tied_ranks(fails).mean(1) - len(fails)
        return combined


_RULES: dict[str, Callable[[Ensemble, Tensor], Tensor]] = {
    RANK_MEAN: Ensemble._rank_mean,
    Z_SCORE: Ensemble._z_score,
    WEIGHTED_SUM: Ensemble._weighted_sum,
    GATE: Ensemble._gate,
}


def size_of(verifier: Verifier) -> int:
    """Return how many verifiers one is: itself, and all parts of an ensemble."""
    return 1 + sum(map(size_of, getattr(verifier, "parts", ())))


def leaves_of(verifier: Any) -> list[Any]:
    """Return the single verifiers that one is made of; none of None."""
    if verifier is None:
        return []
    parts = getattr(verifier, "parts", None)
    return [verifier] if parts is None else [leaf for part in parts for leaf in leaves_of(part)]


def models_of(verifier: Verifier) -> list[Any]:
    """Return the model patchers that a verifier shows by `patcher` or `get_models()`."""
    get_models = getattr(verifier, "get_models", None)
    if get_models is not None:
        return list(get_models())
    patcher = getattr(verifier, "patcher", None)
    return [] if patcher is None else [patcher]


def _uniquely_named(parts: tuple[Verifier, ...], ensemble: str) -> tuple[Verifier, ...]:
    if not parts:
        raise ValueError(f"{ensemble}: no verifier is connected. Connect one to 'verifier_1'.")
    seen: Counter[str] = Counter()
    taken = {part.name for part in parts}
    unique = []
    for part in parts:
        seen[part.name] += 1
        if seen[part.name] > 1:
            number = seen[part.name]
            while f"{part.name} {number}" in taken:
                number += 1
            taken.add(f"{part.name} {number}")
            part = _renamed(part, f"{part.name} {number}", ensemble)
        unique.append(part)
    return tuple(unique)


def _renamed(part: Verifier, name: str, ensemble: str) -> Verifier:
    if not is_dataclass(part):
        raise ValueError(f"{ensemble}: two verifiers are named {part.name!r}; give each a name of its own.")
    return replace(part, name=name)
