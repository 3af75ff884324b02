"""The carrier: a SAMPLER that runs many trajectories in lockstep inside one `guider.sample`.

It gathers the model calls that the trajectories wait for, joins those that may share one, calls the real guider
and hands every trajectory its rows. It returns early once every trajectory waits below the cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Iterator, MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from ..base.levels import same_level
from .model_calls import ModelCall, request_key, why_apart
from .model_options import POST_CFG, Change, Options, apply_changes, clone_options
from .recording import guidance_gaps, record_of, recorded
from .shared_check import Place, SharedCall, SharedCalls, SharedCallsDiffer, place_of
from .trajectory import Trajectory


def _always(runs: Any) -> bool:
    return True


def _no_oom(error: BaseException) -> bool:
    return False


def _nothing(*args: Any) -> None:
    return None


@dataclass
class CallPolicy:
    """What bounds and watches the model calls of a search.

    Attributes:
        max_rows: most latent rows in one model call; halved when memory runs out.
        before_call: called before every call; may wait, close runs, or raise to interrupt.
        may_call: asked before every call with the runs it serves; False ends the round (the budget is spent).
        called: told after every call: the trajectories it served and their denoised rows (n R, ...).
        is_oom: says whether an exception means that memory ran out.
        on_oom: called before a smaller call is tried.
        shared: checks calls of several runs; None for no check.
        smaller_calls: how often `max_rows` was halved.
        few_sizes: calls hold a power of two of runs: a compiled model is compiled anew for every size.
        most_in_flight: most runs whose samplers hold latents at a time; halved when memory runs out in one of them.
        ran_out: how often it was halved.
        runs: all that may be in flight, by their numbers.
        uneven: why runs are no longer advanced together: what one did that the first run did not; empty: they are.
        unshared: why runs that wait at one noise level do not share calls; empty if they do.
    """

    max_rows: int = 1
    before_call: Callable[[], None] = _nothing
    may_call: Callable[[Sequence[Trajectory]], bool] = _always
    called: Callable[[Sequence[Trajectory], Tensor], None] = _nothing
    is_oom: Callable[[BaseException], bool] = _no_oom
    on_oom: Callable[[], None] = _nothing
    shared: SharedCalls | None = None
    smaller_calls: int = field(default=0)
    few_sizes: bool = field(default=False)
    most_in_flight: float = field(default=math.inf)
    ran_out: int = field(default=0)
    runs: MutableMapping[int, Trajectory] = field(default_factory=WeakValueDictionary)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    uneven: str = field(default="")
    unshared: str = field(default="")

    def together(self, waiting: int, rows: int = 1) -> int:
        """Return how many of `waiting` runs of so many latent rows each share the next call.

        They need as few calls as memory allows, of sizes that differ by one at most.
        """
        most = max(1, self.max_rows // rows)
        if self.few_sizes:
            return 1 << (min(waiting, most).bit_length() - 1)
        calls = -(-waiting // most)
        return -(-waiting // calls)

    def add(self, run: Trajectory) -> Trajectory:
        """Know of a run, and return it."""
        self.runs[next(self._numbers)] = run
        return run

    @property
    def in_flight(self) -> list[Trajectory]:
        """The runs whose samplers hold latents, in the order in which they were made."""
        return [run for _, run in sorted(self.runs.items()) if run.in_flight]


class Answered(NamedTuple):
    """A model call that was made.

    Attributes:
        denoised: its rows (n R, ...).
        seen: what post-CFG functions were given; None if there are none, or if it does not tell the result.
        gaps: guidance gap of each run, if they are noted.
    """

    denoised: Tensor
    seen: dict[str, Any] | None
    gaps: Sequence[float]


class LockstepSampler:
    """A SAMPLER object that runs `trajectories` until each waits for a call below `until_sigma` or has ended.

    Attributes:
        trajectories: the runs, new or suspended, in the order of the rows it returns.
        until_sigma: a run stops when its next request, beside its first, has a sigma below this; 0 runs to the end.
        limits: see `CallPolicy`.
        stopped: whether `limits.may_call` ended the round, or a run that makes other calls than the leader.
        entered: whether the guider came as far as to sample.
        whole: of the rows that it returned, block by block and run by run, whether they are those of the run; rows of another
            shape than a result's, which an unfinished run has, are left out.
    """

    def __init__(
        self, trajectories: Sequence[Trajectory], until_sigma: float, limits: CallPolicy,
        *, on_enter: Callable[[Any, Options], None] = _nothing, alone: bool = False, denoised_too: bool = False,
        whole_segments: bool = False, gaps: bool = False, predictions: Sequence[float] = (), leader: Any = None,
    ) -> None:  # fmt: skip
        """Prepare a round.

        Args:
            trajectories: the runs to advance; all of one latent shape.
            until_sigma: the cut, model units.
            limits: bounds of the calls.
            on_enter: called with the guider and its model options before the first call of the round.
            alone: there is one run and it is never suspended: its calls are passed on untouched, since what is
                patched into the model may keep state in the very objects it is given.
            denoised_too: append the last denoised predictions of all runs to the rows that `sample` returns.
            whole_segments: only runs whose noise levels are all the same share a call, those behind them included.
            gaps: note the guidance gap of every call.
            predictions: levels whose noted predictions, of all runs, are appended to the rows that `sample` returns.
            leader: the run that tells what calls all whole runs make, in this round or before; None if there is none.
        """
        self.trajectories = list(trajectories)
        self.until_sigma = until_sigma
        self.limits = limits
        self.stopped = self.entered = False
        self.whole: list[bool] = []
        self._leader = leader
        self._on_enter, self._alone, self._denoised_too, self._whole = on_enter, alone, denoised_too, whole_segments
        self._gaps, self._predictions = gaps, tuple(predictions)
        self._guider: Any = None
        self._options: Options = {}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.trajectories[0].sampler, name)  # what else wrappers may ask the user's sampler for

    @torch.no_grad()
    def sample(
        self, model_wrap: Any, sigmas: Tensor, extra_args: dict, callback: Any, noise: Tensor,
        latent_image: Tensor | None = None, denoise_mask: Tensor | None = None, disable_pbar: bool = False,
    ) -> Tensor:  # fmt: skip
        """Advance all runs; ComfyUI's SAMPLER protocol.

        Returns:
            Rows (n R, ...) in model space: results of the ended runs, denoised predictions of the others.
        """
        self._guider, self._options, self.entered = model_wrap, extra_args["model_options"], True
        self._on_enter(model_wrap, self._options)
        clean = torch.zeros_like(noise) if latent_image is None else latent_image
        for run in self.trajectories:
            if run.alive:
                rows = _rows_of_run(run, clean)
                mask = None if denoise_mask is None else denoise_mask[:rows]
                handed = (noise, sigmas) if self._alone else None
                self._let(run, run.enter, model_wrap, self._options, clean[:rows], mask, noise.dtype, handed)
        while not self.stopped:
            sigma, group = self._next_group()
            if not group or self._parts(group, sigma):
                break
            self._answer(group, sigma)
        return self._returned()

    def _returned(self) -> Tensor:
        """Join what the runs are to hand out; a result may be of another shape than the latent (a sampler that enlarges it)."""
        rows = [run.rows() for run in self.trajectories]
        rows += [run.last_denoised() for run in self.trajectories] if self._denoised_too else []
        rows += [run.prediction(level) for level in self._predictions for run in self.trajectories]
        shape = next((run.result for run in self.trajectories if run.result is not None), rows[0]).shape[1:]
        self.whole = [part.shape[1:] == shape for part in rows]
        return torch.cat([part if ok else part.new_zeros(len(part), *shape) for part, ok in zip(rows, self.whole, strict=True)])

    def _parts(self, group: Sequence[Trajectory], sigma: float) -> bool:
        """Whether a run makes another call than the leader did, and there are others with which it cannot go on together."""
        if self._leader is None:
            return False
        leads = any(run is self._leader for run in group)
        why = next((why for run in group if (why := self._other_call(run, sigma, leads))), "")
        self.limits.uneven = self.limits.uneven or why
        self.stopped = bool(why) and len(self.trajectories) > 1
        return self.stopped

    def _other_call(self, run: Trajectory, sigma: float, leads: bool) -> str:
        """Say what a whole run's next call has that the leader's of the same number has not; empty if they are alike.

        `leads`: the leader waits for a call beside it.
        """
        leader, number = self._leader, len(run.levels)
        if leader is run or run.at is not None or run.repeats:
            return ""
        if leads and number == len(leader.levels):
            return ""  # it is the same call
        if number < len(leader.levels):
            other = leader.levels[number]
            said = f"call {number + 1} of a run is at sigma {sigma:g}, candidate 0's at {other:g}"
            return "" if same_level(sigma, other) else said
        return f"call {number + 1} of a run is at sigma {sigma:g}, where candidate 0 made none" if leader.levels else ""

    def _next_group(self) -> tuple[float, list[Trajectory]]:
        """Return the largest waiting sigma and the runs that may share a call at it.

        Falling sigma, since hook keyframes only move forward.
        """
        waiting = [run for run in self.trajectories if run.pending is not None]
        levels = _sigmas([run.request for run in waiting])
        above = [(max(level), level, run) for run, level in zip(waiting, levels, strict=True)]
        above = [entry for entry in above if entry[2].goes_to(self.until_sigma, entry[0])]
        if not above:
            return 0.0, []
        sigma, level, first = max(above, key=lambda entry: entry[0])
        key = self._key(first, sigma)
        if min(level) != max(level):
            return sigma, [first]  # rows at different noise levels: conditioning ranges would look at the first row only
        there = [run for _, other, run in above if other == level]
        group = [run for run in there if self._key(run, sigma) == key]
        if len(group) < len(there) and not self.limits.unshared:
            self.limits.unshared = next(filter(None, (why_apart(first.request, run.request) for run in there)), "")
        return sigma, group

    def _key(self, run: Trajectory, sigma: float) -> Hashable:
        """Branches share calls with other runs once the noise levels that lie before them are the same."""
        return (request_key(run.request), run.segment() if self._whole else run.segment(sigma))

    def _answer(self, group: list[Trajectory], sigma: float) -> None:
        """Answer the runs of a group in as few calls as memory allows."""
        todo = list(group)
        while todo:
            self.limits.before_call()
            todo = [run for run in todo if run.alive]
            if not todo:
                return
            rows = todo[0].request.x.shape[0]
            count = self.limits.together(len(todo), rows)
            chunk = todo[:count]
            if not self.limits.may_call(chunk):
                self.stopped = True
                return
            answered = self._call_or_halve(chunk, sigma)
            if answered is None:
                continue
            todo, (denoised, seen, gaps) = todo[count:], answered
            for run, gap in zip(chunk, gaps, strict=False):
                run.gaps += [] if run.repeats else [gap]
            self.limits.called(chunk, denoised)
            for index, run in enumerate(chunk):
                part = denoised[index * rows : (index + 1) * rows]
                if run.keeps(sigma) and not run.repeats:
                    run.keep(record_of(run, seen, part, index * rows, count * rows))
                self._let(run, run.answer, part, rows, sigma)

    def _let(self, run: Trajectory, go_on: Callable[..., None], *how: Any) -> None:
        """Have a run's sampler go on; where memory runs out in it and others are in flight, let go of the run.

        Half as many may be in flight then. Its calls are made again, in a round after this one.
        """
        limits = self.limits
        try:
            go_on(*how)
            return
        except Exception as error:
            flying = sum(other is not run for other in limits.in_flight) + 1
            if flying == 1 or not limits.is_oom(error):
                raise
        limits.ran_out += flying // 2 < limits.most_in_flight
        limits.most_in_flight = min(limits.most_in_flight, flying // 2)
        run.let_go(fell=True)
        limits.on_oom()

    def _call_or_halve(self, chunk: list[Trajectory], sigma: float) -> Answered | None:
        """Call the guider for a chunk; return None if that is to be tried again with fewer runs.

        That is when memory runs out, and when the model refuses several runs or mixes them up: then with one.
        """
        limits, shared = self.limits, self.limits.shared
        try:
            answered = self._call(chunk, sigma)
        except SharedCallsDiffer:
            raise
        except Exception as error:
            out_of_memory = limits.is_oom(error)
            if len(chunk) == 1:
                if shared is not None:
                    shared.failed_alone(error)
                raise
            if not out_of_memory:
                if shared is None or not shared.is_fault(error):
                    raise
                shared.failed(error)
        else:
            if answered is None:
                limits.max_rows = 1
            elif len(chunk) == 1 and shared is not None:
                shared.worked_alone()
            return answered
        limits.max_rows = len(chunk) * chunk[0].request.x.shape[0] // 2 if out_of_memory else 1
        if out_of_memory:
            limits.smaller_calls += 1
            limits.on_oom()
        return None

    def _call(self, chunk: list[Trajectory], sigma: float) -> Answered | None:
        """Make one model call for all runs of a chunk; None if its answers may not be used."""
        requests = [run.request for run in chunk]
        first = requests[0]
        seen: dict[str, Any] = {}
        options = first.options if self._alone else self._joined_options(chunk, [request.change for request in requests])
        x = first.x if len(chunk) == 1 else torch.cat([request.x for request in requests])
        levels = first.sigma if len(chunk) == 1 else torch.cat([_per_row(r) for r in requests])
        keeps = any(run.keeps(sigma) for run in chunk)
        recording = recorded(options, len(self._options.get(POST_CFG, [])), seen) if keeps or self._gaps else nullcontext()
        checked = self.limits.shared if len(chunk) > 1 else None
        with recording, checked.observe(self._guider, x.shape[0]) if checked else nullcontext([]) as forwards:
            denoised = self._guided(first, x, levels, options)
        if checked is not None and not checked.accept(self._shared_call(chunk, sigma, x, denoised, tuple(forwards))):
            return None
        gaps = guidance_gaps(seen, levels, requests) if self._gaps else []
        if keeps and "result" in seen and not torch.equal(seen.pop("result"), denoised):
            seen.clear()  # the guider goes on after its post-CFG functions: their replay would miss that
        return Answered(denoised, seen if keeps and seen else None, gaps)

    def _joined_options(self, chunk: Sequence[Trajectory], changes: Sequence[Change]) -> Options:
        """Return the model options of a call for a chunk, as its runs changed them."""
        base = clone_options(self._options)
        base.setdefault("transformer_options", {})["sample_sigmas"] = chunk[0].own_sigmas()
        return apply_changes(base, changes, [run.request.x.shape[0] for run in chunk])

    def _guided(self, request: ModelCall, x: Tensor, levels: Tensor, options: Options) -> Tensor:
        """Call the guider as a request says, with other rows."""
        with _written(self._guider, request.guider_writes):
            return getattr(self._guider, request.method)(x, levels, model_options=options, seed=request.seed)

    def _shared_call(
        self, chunk: Sequence[Trajectory], sigma: float, x: Tensor, denoised: Tensor, forwards: Hashable
    ) -> SharedCall:
        """Describe a call that was made, and how to make it again without the runs' own post-CFG functions."""
        last = chunk[-1].request
        rows = last.x.shape[0]

        def again(x: Tensor) -> Tensor:
            options = self._joined_options(chunk[:1], [replace(last.change, post_cfg=())])
            levels = last.sigma if x.shape[0] == rows else torch.cat([_per_row(last)] * (x.shape[0] // rows))
            return self._guided(last, x, levels, options)

        places = [place_of(run, sigma) for run in chunk]
        place = Place(any(p.second_half for p in places), any(p.last_step for p in places), sigma)
        own = any(run.request.change.post_cfg for run in chunk)
        return SharedCall(x, denoised, rows, forwards, place, own, again)


class _written:  # noqa: N801 - a context manager
    """Set attributes on the guider for one call, and put back what was there."""

    def __init__(self, guider: Any, writes: Sequence[tuple[str, Any]]) -> None:
        self.guider, self.writes = guider, writes

    def __enter__(self) -> None:
        self.before = {name: self.guider.__dict__.get(name, self) for name, _ in self.writes}
        for name, value in self.writes:
            setattr(self.guider, name, value)

    def __exit__(self, *error: object) -> None:
        for name, value in self.before.items():
            if value is self:
                delattr(self.guider, name)
            else:
                setattr(self.guider, name, value)


def _sigmas(requests: Sequence[ModelCall]) -> list[tuple[float, ...]]:
    """Read all waiting noise levels with one transfer from the device."""
    if not requests:
        return []
    flat = [request.sigma.flatten().float() for request in requests]
    values = torch.cat(flat).tolist()
    out, first = [], 0
    for part in flat:
        out.append(tuple(values[first : first + len(part)]))
        first += len(part)
    return out


def _per_row(request: ModelCall) -> Tensor:
    sigma, rows = request.sigma.flatten(), request.x.shape[0]
    return sigma if len(sigma) == rows else sigma[:1].expand(rows)


def _rows_of_run(run: Trajectory, clean: Tensor) -> int:
    start = run.at if run.at is not None else run.noise
    return clean.shape[0] if start is None else start.shape[0]
