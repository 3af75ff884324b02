"""One candidate's run of the user's own sampler, in a fiber that is suspended at every model call."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any

import torch
from greenlet import GreenletExit, getcurrent, greenlet
from torch import Tensor

from ..base.levels import same_level
from ..noise.jitter import Jitter
from .guider_stand_in import GuiderStandIn
from .model_calls import CallRecord, ModelCall, answer_from, at_or_above, record_at
from .model_options import Options, change_between, clone_options
from .rng import RngState, put_rng, take_rng
from .run_start import Start

_TRIES_TO_CLOSE = 100  # a sampler may catch the exit and call the model again


class Trajectory:
    """A suspended run of a ComfyUI SAMPLER from one noise with one seed.

    Attributes:
        sigmas: the run's own noise levels (S + 1,), model units.
        seed: seed of the run's step noise.
        pending: the model call it waits for; None before its start and after its end.
        denoised: answer to its last model call (R, ...), model space, the mask blended in; None before the first.
        result: what the sampler returned (R, ...), model space; None before the end.
        latent: denoised or result as the guider handed it out (latent space of the VAE), set by the session.
        nfe: model calls so far, in latent rows; those that were made again count once.
        step: steps that its sampler has told of; some samplers tell of none.
        levels: noise levels of the answered calls, in order, model units.
        odd: which of these calls were of another shape than the latent's: a part of it, or another size.
        records: answered calls, as far as `keep_records` says.
        jitter: how its positive conditioning is varied; None for not at all. Set by the session.
        gaps: guidance gap of the answered calls, in order, as far as they are recorded; NaN where there is none.
        noted: for each of the levels to note, `denoised` of the last call at or above it (R, ...), model space.
        predictions: the same as the guider handed it out, of an ended run; set by the session.
        fell: memory ran out in its sampler, and that has to be started anew.
    """

    def __init__(
        self, sampler: Any, sigmas: Tensor, noise: Tensor | None, seed: int, rng: RngState | None = None,
        *, at: Tensor | None = None, twin: CallRecord | None = None, keep_records: bool | Sequence[float] = False,
        alone: bool = False, prediction_levels: Sequence[float] = (), renoised: tuple[float, Tensor] | None = None,
        by_steps: bool = False, starting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:  # fmt: skip
        """Prepare a run; nothing is computed yet.

        Args:
            sampler: the user's SAMPLER object.
            sigmas: noise levels (S + 1,).
            noise: unit Gaussian (R, ...) as the guider would be given; None if `at` is given.
            seed: seed of the step noise.
            rng: global random state the run starts with; None leaves the global generators alone.
            alone: the run has the global generators for itself: what is patched into the model may draw from them.
            at: noisy latent (R, ...) that a model call saw at sigmas[0], to start from instead of noise.
            renoised: noise level of `at` if that is lower, and the unit Gaussian (R, ...) that takes it up to sigmas[0].
            by_steps: the sampler may tell the model other noise levels than those of its steps: it is cut by its steps.
            twin: the record of the run this one branches from, to answer its first call if it is the same call.
            keep_records: keep every answered call, or the last one at each of these noise levels.
            prediction_levels: noise levels whose predictions are noted.
            starting: a context in which the sampler runs up to its first model call.
        """
        self.sampler, self.sigmas, self.noise, self.seed = sampler, sigmas, noise, seed
        self.at, self.twin, self.keep_records = at, twin, keep_records
        self.pending: ModelCall | None = None
        self.denoised: Tensor | None = None
        self.result: Tensor | None = None
        self.latent: Any = None
        self.nfe = self.step = 0
        self.levels: list[float] = []
        self.odd: list[int] = []
        self.records: list[CallRecord] = []
        self.jitter: Jitter | None = None
        self.gaps: list[float] = []
        self.noted: dict[float, Tensor] = {}
        self.predictions: dict[float, Any] = {}
        self._prediction_levels, self._starting = tuple(prediction_levels), starting
        self._rng, self._alone, self._renoised, self._by_steps = rng, alone, renoised, by_steps
        self._first_rng = rng
        self._made = 0  # model calls since its sampler was started, for the first time or anew
        self._left_at: float | None = None
        self.fell = False
        self._fiber: greenlet | None = None
        self._guider: GuiderStandIn | None = None
        self._base: Options = {}
        self._device = torch.device("cpu")
        self._mask: Tensor | None = None
        self._clean: Tensor  # once it is entered
        self._segment = tuple(float(s) for s in sigmas)
        self._closed = False

    @property
    def finished(self) -> bool:
        """Whether the sampler returned."""
        return self.result is not None

    @property
    def alive(self) -> bool:
        """Whether the run was neither finished nor closed."""
        return not (self.finished or self._closed or (self._fiber is not None and self._fiber.dead))

    @property
    def in_flight(self) -> bool:
        """Whether its sampler was started and has not returned, so that it holds latents."""
        return self._running is not None

    @property
    def frame(self) -> FrameType | None:
        """The frame in which its sampler is suspended; None if it is not."""
        fiber = self._running
        return None if fiber is None else fiber.gr_frame

    @property
    def _running(self) -> greenlet | None:
        """The fiber of its sampler; None before that was started and after it returned."""
        return None if self._fiber is None or self._fiber.dead else self._fiber

    @property
    def request(self) -> ModelCall:
        """The model call that it waits for.

        Raises:
            RuntimeError: it waits for none.
        """
        if self.pending is None:
            raise RuntimeError("the run waits for no model call")
        return self.pending

    @property
    def repeats(self) -> bool:
        """Whether its next model call was made, and counted, before its sampler was started anew."""
        return self._made < len(self.levels)

    @property
    def behind(self) -> list[float]:
        """Noise levels of the model calls since its sampler was started."""
        return self.levels[: self._made] if self.in_flight else []

    def was_left_at(self, cut: float) -> bool:
        """Whether it was let go where it waited at a cut."""
        return self._left_at is not None and not self.goes_to(cut, self._left_at)

    @property
    def segment_start(self) -> tuple[Tensor, Tensor] | None:
        """Noise (R, ...) and sigmas that a stock run of a branch's own segment starts from; None for a whole run."""
        return None if self.at is None or self.noise is None else (self.noise.cpu(), self.sigmas)

    def segment(self, sigma: float = math.inf) -> tuple[float, ...]:
        """Return the run's own noise levels from `sigma` down as a key: models and patches may read them."""
        return _below(self._segment, sigma)

    def put_rng(self, device: torch.device) -> None:
        """Put the global generators where the run starts."""
        if self._rng is not None:
            put_rng(self._rng, device)

    def start_noise(self, like: Tensor) -> Tensor:
        """Return the noise (R, ...) the run starts from, or one of the shape of `like` if that is found later."""
        return torch.zeros_like(like) if self.noise is None else self.noise.to("cpu", copy=True)  # wrappers may write into it

    def own_sigmas(self) -> Tensor:
        """Return the run's own noise levels (S + 1,) on the device it runs on."""
        return self._base["transformer_options"]["sample_sigmas"]

    def enter(
        self, guider: Any, options: Options, latent: Tensor, mask: Tensor | None, dtype: torch.dtype,
        handed: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """Start the run in this `guider.sample`, or point the suspended run at the guider's new state.

        Args:
            guider: the real guider, inside its `sample`.
            options: the round's model options.
            latent: latent image (R, ...), model space.
            mask: denoise mask (R, ...) or None.
            dtype: of the noise that the guider hands to samplers.
            handed: noise (R, ...) and noise levels that it handed to this run's sampler, if it is alone: what is wrapped around
                the sampler may have changed them.
        """
        if self._fiber is not None:
            object.__setattr__(self._guider, "_guider", guider)
            return
        self._device, self._mask, self._clean = latent.device, mask, latent
        self._rng, self._made, self.step, self._left_at, self.fell = self._first_rng, 0, 0, None, False
        sigmas = self.sigmas.to(latent.device, copy=True)  # uni_pc writes into what it is given
        self._base = clone_options(options)
        self._base.setdefault("transformer_options", {})["sample_sigmas"] = sigmas
        if handed is not None and self.at is None:
            self.noise = handed[0]
            if not torch.equal(handed[1], sigmas):
                sigmas = handed[1].clone()
        self._guider = GuiderStandIn(self, guider)
        noise = self.noise
        if self.at is not None:
            noise = self._noise_of_start(self.at, Start(guider, sigmas, latent, mask, self._base))
        if noise is None:
            raise ValueError("a run needs noise, or a latent to start at")
        self.noise = noise.to(latent.device, dtype)
        self._fiber = greenlet(functools.partial(self._run, self.noise))
        self._fiber.gr_context = contextvars.copy_context()
        with self._starting():
            self._switch(sigmas)

    def _noise_of_start(self, at: Tensor, start: Start) -> Tensor:
        """Return the noise (R, ...) with which the run starts where it was told to."""
        x = at.to(start.latent.device)
        if self._renoised is None:
            return start.noise_that_gives(x)
        sigma, eps = self._renoised
        return start.noise_that_gives_renoised(x, torch.tensor(sigma, device=x.device), eps.to(x))

    def answer(self, denoised: Tensor, rows: int, sigma: float) -> None:
        """Give the pending call at `sigma` its answer (R, ...) and run on to the next call or the end."""
        self.nfe += 0 if self.repeats else rows
        self._note(denoised, sigma)
        self.pending = None
        self._switch(denoised)

    def keeps(self, sigma: float) -> bool:
        """Whether the call at a noise level is kept."""
        if isinstance(self.keep_records, bool):
            return self.keep_records
        return any(same_level(sigma, level) for level in self.keep_records)

    def goes_to(self, cut: float, waits: float) -> bool:
        """Whether a run that waits for a call at the noise level `waits` makes it before it is cut at another.

        A sampler that tells the model other levels than its own is cut by its steps, as far as it tells of them. One that was
        started anew catches up first.
        """
        if cut <= 0.0 or self.repeats:
            return True
        place = next((k for k, level in enumerate(self._segment) if same_level(cut, level)), None)
        if place is None or not self._by_steps or self.step == 0 or any(same_level(waits, level) for level in self._segment):
            return waits >= cut or self._owes(cut, waits)
        return self.step <= place

    def _owes(self, sigma: float, waits: float) -> bool:
        """Whether a run that waits below a noise level has yet to make a call at it, or any call.

        Its first is always made: some samplers shift the first sigma a little, and without it there is nothing to look at.
        A record that is wanted there may follow calls at lower levels, within the step before: see `sample_glass`.
        """
        if not self.levels:
            return True
        if isinstance(self.keep_records, bool) or not self.keeps(sigma):
            return False
        passed = any(level < sigma and same_level(waits, level) for level in self._segment)
        return not passed and record_at(self.records, sigma) is None

    def keep(self, record: CallRecord) -> None:
        """Keep an answered call; of several at one level only the last before the run went below, unless all are wanted.

        So a run that waits and one that ended keep the same call, also of a sampler that comes back up (heunpp2).
        A call of another shape than the latent's is no place to start a run from.
        """
        if record.x.shape != self._clean.shape:
            return
        if not isinstance(self.keep_records, bool):
            others = [r for r in self.records if not same_level(r.sigma, record.sigma)]
            below = any(level < record.sigma and not same_level(level, record.sigma) for level in self.levels)
            if below and len(others) < len(self.records):
                return
            self.records = others
        self.records.append(record)

    def close(self) -> None:
        """End a suspended run for good; its sampler unwinds, and what it raises as it does is of no interest."""
        self._closed, self.pending = True, None
        self._unwind()

    def let_go(self, fell: bool = False) -> None:
        """Free what its sampler holds: it is started anew when the run is advanced, and its calls up to here are made again.

        `fell`: memory ran out in it, so that it is not where it was to go.
        """
        self.fell = fell
        self._left_at = None if fell or self.pending is None else float(self.pending.sigma.max())
        self.pending = None
        self._unwind()
        self._fiber = self._guider = None

    def _unwind(self) -> None:
        for _ in range(_TRIES_TO_CLOSE):
            fiber = self._running
            if fiber is None:
                self._guider = None
                return
            with contextlib.suppress(Exception), self._inside():
                fiber.throw(GreenletExit)

    def rows(self) -> Tensor:
        """Return the result if finished, else the last denoised prediction (R, ...), model space."""
        return self.last_denoised() if self.result is None else self.result

    def last_denoised(self) -> Tensor:
        """Return the last denoised prediction of the whole latent (R, ...), model space; zeros before the first."""
        return torch.zeros_like(self._clean) if self.denoised is None else self.denoised

    def prediction(self, level: float) -> Tensor:
        """Return what was noted for a level (R, ...), model space; zeros where no call was at or above it."""
        return self.noted[level] if level in self.noted else torch.zeros_like(self._clean)

    def _note(self, denoised: Tensor, sigma: float) -> None:
        known, self._made = self.repeats, self._made + 1
        if not known:
            self.levels.append(sigma)
        if denoised.shape != self._clean.shape:
            if not known:
                self.odd.append(len(self.levels) - 1)
            return
        if self._mask is None:
            self.denoised = denoised.clone()  # the sampler may write to what it is given
        else:
            self.denoised = denoised * self._mask + self._clean * (1.0 - self._mask)
        self.noted |= {level: self.denoised for level in self._prediction_levels if at_or_above(sigma, level)}

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Give the fiber its own global random state, and keep it and its gradient mode from the outside."""
        with torch.no_grad():
            if self._rng is None or self._alone:
                yield
                return
            outside = take_rng(self._device)
            put_rng(self._rng, self._device)
            try:
                yield
            finally:
                self._rng = take_rng(self._device)
                put_rng(outside, self._device)

    def _switch(self, value: Tensor) -> None:
        """Run the fiber until its next call or its end."""
        fiber = self._fiber
        if fiber is None:
            raise RuntimeError("the run was not started, or let go of")
        with self._inside():
            out = fiber.switch(value)
        if isinstance(out, ModelCall):
            self.pending = out
        elif fiber.dead:
            self.result, self._guider = out, None  # ends the cycle of references: tensors go at once

    def _run(self, noise: Tensor, sigmas: Tensor) -> Tensor:
        args = {"model_options": clone_options(self._base), "seed": self.seed}
        noise, clean = noise.clone(), self._clean.clone()
        return self.sampler.sample(self._guider, sigmas, args, self._told, noise, clean, self._mask, disable_pbar=True)

    def _told(self, step: int, denoised: Tensor, x: Tensor, total_steps: int) -> None:
        """The step callback of the run: progress and previews are made where the model is called."""
        self.step = max(self.step, int(step) + 1)

    def ask(
        self, method: str, stand_in: GuiderStandIn, x: Tensor, sigma: Tensor, options: Options | None, seed: int | None
    ) -> Tensor:  # fmt: skip
        """Called inside the fiber: hand the request to the scheduler and wait for the answer.

        Code of the run that is called during a model call (a wrapper that it put around the guider's method) is
        outside of the fiber, and has the real guider.
        """
        options = {} if options is None else options  # the default of ComfyUI's guiders: no patch applies
        fiber = getcurrent()
        if fiber is not self._fiber or fiber.parent is None:
            guider = stand_in._guider
            return getattr(type(guider), method)(guider, x, sigma, options, seed)
        writes = stand_in._writes
        request = ModelCall(method, x, sigma, options, change_between(self._base, options), tuple(sorted(writes.items())), seed)
        twin, self.twin = self.twin, None
        if twin is not None:
            known = answer_from(twin, request)
            if known is not None:
                self._note(known, twin.sigma)
                self.gaps += twin.gaps[-1:]
                if self.keeps(twin.sigma):
                    self.keep(twin)
                return known
        return fiber.parent.switch(request)


@functools.lru_cache(maxsize=256)
def _below(levels: tuple[float, ...], sigma: float) -> tuple[float, ...]:
    """Return the noise levels that are not above another: the same for all runs of a schedule, which wait at it together."""
    return tuple(level for level in levels if level <= sigma * (1 + 1e-5))
