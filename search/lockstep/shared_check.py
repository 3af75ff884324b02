"""Do candidates that share a model call get the answers they would get by themselves? Found out by calling the model again.

One row once more alone is no proof: in low precision right models round differently for another batch size, by more than some
wrong models differ. A second call of the same shape, of copies of the last row, is: all its rows are the same, and the last is
what the shared call gave. It is made before the answers of the shared call are used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .rng import put_rng, take_rng
from .trajectory import Trajectory

ROUNDING = 4.0  # units in the last place of a latent, by which predictions for it may differ: where it is large, they do
AS_MUCH = 3.0  # calls that differ from themselves explain differences of up to so many times theirs
_CHECKING: ContextVar[bool] = ContextVar("noise_search_checking", default=False)


class SharedCallsDiffer(Exception):
    """Answers of shared calls that a search has used are not those of the candidates alone: its runs begin anew."""


class Place(NamedTuple):
    """Where in a run's schedule a call is.

    Attributes:
        second_half: in the second half of the steps.
        last_step: in the last step.
        sigma: its noise level.
    """

    second_half: bool
    last_step: bool
    sigma: float


class Tolerance(NamedTuple):
    """How much two answers may differ, relative L2 norm of x minus prediction.

    Attributes:
        same_shape: in calls of the same shape.
        other_shape: in a call of one candidate.
    """

    same_shape: float
    other_shape: float


EXACT, HALF, BRAIN = Tolerance(1e-5, 1e-4), Tolerance(1e-4, 2e-2), Tolerance(1e-3, 1e-1)
TOLERANCES = {torch.float64: EXACT, torch.float32: EXACT, torch.float16: HALF, torch.bfloat16: BRAIN}


class Verdicts(Protocol):
    """What is known of the shared calls of one model, with what is patched into it, from checks before."""

    def proven(self, forwards: Hashable, rows: int, place: Place) -> bool:
        """Whether a call of as many rows, or of more, that became these forwards was found right at such a place."""
        ...

    def prove(self, forwards: Hashable, rows: int, place: Place) -> None:
        """Remember that a call was right."""

    def refuse(self, reason: str) -> None:
        """Remember why candidates must not share calls."""


@dataclass
class SharedCall:
    """A model call of several candidates that was made, and how to make its like.

    Attributes:
        x: noisy latents (n R, ...) the guider was given.
        denoised: its answer (n R, ...).
        rows: latent rows R of one candidate.
        forwards: what the guider made of it; see `SharedCalls.observe`.
        place: where in the schedule it is.
        own_functions: whether runs have post-CFG functions of their own, which `denoised` went through.
        again: makes the call with other rows (m R, ...), without the runs' own functions.
    """

    x: Tensor
    denoised: Tensor
    rows: int
    forwards: Hashable
    place: Place
    own_functions: bool
    again: Callable[[Tensor], Tensor]


@dataclass
class SharedCalls:
    """Checks the shared calls of one search, and notes what comes of it.

    Attributes:
        verdicts: what is remembered.
        tolerance: how much answers may differ.
        observe: given the guider and the rows of a call, a context that notes the forwards made of it in a list.
        is_fault: whether an exception of a call may mean that the model refuses several candidates: neither a cancel nor a
            lack of memory does.
        device: whose global random state is put back after a check.
        compares: whether answers are compared; if not, only errors end the sharing.
        before_check: called before every check; may raise to interrupt.
        calls: latent rows of the calls that checks made, and of shared calls that were given up.
        answered: how many shared calls were used.
        reason: why candidates go one by one; empty if they need not.
        error: what a shared call raised, until it is known whether one candidate alone works.
    """

    verdicts: Verdicts
    tolerance: Tolerance
    observe: Callable[[Any, int], AbstractContextManager[list[Hashable]]]
    is_fault: Callable[[BaseException], bool]
    device: torch.device
    compares: bool = True
    before_check: Callable[[], None] = lambda: None
    calls: int = 0
    answered: int = 0
    reason: str = ""
    error: Exception | None = None

    def accept(self, call: SharedCall) -> bool:
        """Return whether the answers of a shared call may be used; calls the model again where that is not known.

        Raises:
            SharedCallsDiffer: they may not, and answers of shared calls were used before.
        """
        rows = call.x.shape[0]
        if self.compares and not self.verdicts.proven(call.forwards, rows, call.place):
            self.before_check()
            with self._checking():
                found = self._difference(call)
            if found > 0.0:
                self.calls += rows
                self._refuse(f"in a shared model call candidates get other answers than alone, a relative {found:.2g} off")
                if self.answered:
                    raise SharedCallsDiffer(self.reason)
                return False
            self.verdicts.prove(call.forwards, rows, call.place)
        self.answered += 1
        return True

    def failed(self, error: Exception) -> None:
        """Note that a shared call raised an error; one candidate alone is tried next."""
        self.error = error

    def failed_alone(self, error: Exception) -> None:
        """Raise the error of a call of one candidate from that of the shared call before it, if there is one."""
        first, self.error = self.error, None
        if first is not None and first is not error and self.is_fault(error):
            raise error from first

    def worked_alone(self) -> None:
        """Note that a call of one candidate worked: where a shared one had failed, no more of them are made."""
        if self.error is not None:
            lines = str(self.error).strip().splitlines()
            said = ": ".join([type(self.error).__name__, *lines[:1]])
            self.error = None
            self._refuse(f"the model fails with several candidates in one call ({said})")

    def _refuse(self, reason: str) -> None:
        self.reason = reason
        self.verdicts.refuse(reason)

    @contextmanager
    def _checking(self) -> Iterator[None]:
        """Mark the calls of a check as such, and put the global random state back."""
        state, token = take_rng(self.device), _CHECKING.set(True)
        try:
            yield
        finally:
            _CHECKING.reset(token)
            put_rng(state, self.device)

    def _difference(self, call: SharedCall) -> float:
        """Return how far answers of a shared call are off, 0 if it is right."""
        last = call.x[-call.rows :]
        count = call.x.shape[0] // call.rows

        def predict(x: Tensor) -> Tensor:
            self.calls += x.shape[0]
            return x - call.again(x.clone())

        shared = call.x - call.denoised
        copies, alone = predict(torch.cat([last] * count)), predict(last)
        slack = ROUNDING * torch.finfo(last.dtype).eps * float(torch.nan_to_num(last, 0.0, 0.0, 0.0).norm())
        same, other = _measured(shared, copies, alone, slack)
        if same <= self.tolerance.same_shape and other <= self.tolerance.other_shape:
            return 0.0
        if other > self.tolerance.other_shape and not call.own_functions:
            return max(same, other)
        again = predict(call.x)
        itself = _apart(again, shared)
        if call.own_functions:  # they may have changed the answer: the model's own is compared in its place
            same, other = _measured(again, copies, alone, slack)
            itself = _apart(predict(call.x), again)
        right = same <= max(self.tolerance.same_shape, AS_MUCH * itself)
        return 0.0 if right and other <= self.tolerance.other_shape else max(same, other)


def place_of(run: Trajectory, sigma: float) -> Place:
    """Return where in its own schedule a run's pending call is."""
    steps = len(run.sigmas) - 1
    step = max(run.step, sum(level >= sigma * (1 - 1e-5) for level in run.segment()[:-1]) - 1)
    return Place(2 * step >= steps, step >= steps - 1, sigma)


def is_check_call() -> bool:
    """Whether the model call under way belongs to a check, and is none of the search's own."""
    return _CHECKING.get()


def _measured(shared: Tensor, copies: Tensor, alone: Tensor, slack: float) -> tuple[float, float]:
    """Return how far a shared call is from one of the same shape, of copies of its last rows, and from these rows alone.

    `slack`: the norm of a difference that the latent's own rounding explains.
    """
    rows = alone.shape[0]
    last = copies[-rows:]
    equal = max(_apart(part, last, slack) for part in copies.split(rows))
    return max(equal, _apart(shared[-rows:], last, slack)), _apart(shared[-rows:], alone, slack)


def _apart(got: Tensor, wanted: Tensor, slack: float = 0.0) -> float:
    """Return the norm of the difference, less `slack`, over that of `wanted`, of finite numbers; infinite if others differ."""
    got, wanted = got.float(), wanted.float()
    if not torch.equal(got.isfinite(), wanted.isfinite()):
        return float("inf")
    got, wanted = (torch.nan_to_num(value, 0.0, 0.0, 0.0) for value in (got, wanted))
    difference, norm = max(0.0, float((got - wanted).norm()) - slack), float(wanted.norm())
    return difference / norm if norm > 0.0 else float("inf") if difference > 0.0 else 0.0
