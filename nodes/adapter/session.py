"""The ComfyUI session: runs of the user's own guider, sampler, sigmas and latent.

Every round is one `guider.sample` with the carrier as its sampler, so that models are loaded and conditioning is
processed once, by ComfyUI itself. No VAE and no verifier runs inside it: loading one may evict the denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch
from nodes import VAEDecode
from torch import Tensor

from ...search.base.budget import Budget
from ...search.base.session import Calls, Run
from ...search.lockstep.held_memory import held_bytes
from ...search.lockstep.lockstep_sampler import CallPolicy, LockstepSampler
from ...search.lockstep.model_calls import CallRecord
from ...search.lockstep.noise_scaling import coefficients
from ...search.lockstep.rng import RngState, take_rng
from ...search.lockstep.shared_check import SharedCalls
from ...search.lockstep.stochasticity import Probe
from ...search.lockstep.trajectory import Trajectory
from ...search.noise.recipe import BranchPoint, Recipe, is_zero
from ...verifiers.measures.guidance_gap import NO_GAP
from . import memory
from .batching_policy import is_compiled, keeps_guidance, rows_are_frames, why_alone, why_one_a_call
from .brownian import Forests
from .candidate_noise import CandidateNoise
from .conditioning import JitteredGuiders, check_entered
from .graph import CLEAN, LeftoverNoise, SamplingInputs, to_intermediate
from .graph import samples_of as samples_of
from .keyframes import has_keyframes, replay_keyframes
from .noise import join, pack, rows_of, unpack_like
from .sampler_traits import calls_every_step, euler_like, is_adaptive, is_core
from .sharing_verdicts import shared_calls

MIN_WAVE = 8
ADAPTIVE = "the sampler chooses its step sizes by what the model predicts, which rounding in a shared call would change"
MORE_CALLS = "a run takes more model calls than candidate 0 needed by then"
RAN_OUT = (
    "memory ran out in the sampler's own steps: at most {most} runs were under way at a time from there, and others began anew; "
    "the {calls} model calls that were made again for that ('repeated_calls') do not count to the budget"
)
NO_ROOM = (
    "memory has room for {most} runs under way: others were let go and began anew; the {calls} model calls that were made again "
    "for that ('repeated_calls') do not count to the budget"
)
ALONE_WAVE = 4  # more would keep a stop rule waiting; fewer, and on a small card each run would load all models anew


def clamped(images: Tensor) -> Tensor:
    """Return pictures in [0, 1]: those that are there already as they are, without a copy."""
    low, high = images.aminmax()
    return images if low >= 0.0 and high <= 1.0 else images.clamp(0.0, 1.0)


class ComfySession:
    """A `Session` on a ComfyUI graph; see `search.session.Session`."""

    def __init__(
        self, graph: SamplingInputs, budget: Budget, *, batching: str = "auto",
        called: Callable[[Sequence[Trajectory], Tensor], None] = lambda runs, denoised: None,
        shared: SharedCalls | None = None,
    ) -> None:  # fmt: skip
        """Prepare a session; nothing is computed.

        Args:
            graph: what the user connected.
            budget: model calls are counted on it, and asked of it.
            batching: "auto", or "on" / "off" to override what the graph allows.
            called: told after every model call.
            shared: what an earlier session of this search found out about shared calls.
        """
        self.graph, self.budget, self._called, self._batching = graph, budget, called, batching
        self.sigmas = graph.sigmas
        self.device = graph.guider.model_patcher.load_device
        unknown = why_alone(graph.guider)
        reasons = {"auto": unknown, "on": [], "off": ["batching is off"]}[batching]
        if rows_are_frames(graph.guider):
            reasons = [*reasons, "the rows of this model's latents are frames of one video"]
        self.why_alone: list[str] = reasons
        # Step sizes of an adaptive sampler differ by candidate, and amplify the rounding of a shared call.
        self.why_one_a_call = why_one_a_call(graph.guider) if batching == "auto" and not reasons else []
        share = not self.why_alone and not self.why_one_a_call and not self._adaptive
        # What is not known is never called twice to find out: a patch that counts its calls would change the picture.
        if shared is None and share and not unknown:
            shared = shared_calls(graph.guider, graph.latent, compares=batching == "auto")
        share = share and not (shared is not None and shared.reason)
        self._room = None if self.why_alone else memory.Room(graph.guider, graph.sampler, self.shape, pack(graph.given).nbytes)
        rows = self._room.rows() if share and self._room is not None else 1
        self.limits = CallPolicy(
            max_rows=rows, before_call=self._before_call, may_call=self._may_call, called=self._count,
            is_oom=memory.is_oom, on_oom=comfy.model_management.soft_empty_cache, shared=shared,
            few_sizes=is_compiled(graph.guider),
            most_in_flight=math.inf if self._room is None else self._room.runs(rows),
        )  # fmt: skip
        self._weighed: set[int] = set()  # how many calls were behind runs when that was looked at
        self._nothing_drawn = is_zero(pack(graph.given))
        self._ended: list[Tensor] = []  # results of the first runs from a noise of zeros
        self._stochastic: bool | None = None
        self._noise = CandidateNoise(graph, self.device)
        self._guiders = JitteredGuiders(graph.guider)
        self._starting = nullcontext if self.why_alone else Forests().starting
        self.gaps_for = ""
        self.prediction_levels: Sequence[float] = ()
        self.checkpoint: Callable[[], None] = lambda: None
        self.leader: Run | Calls | None = None

    def note_for_scoring(self, gaps_for: str, levels: Sequence[float]) -> None:
        """Note guidance gaps of runs, for the verifier of this name, and their predictions at noise levels."""
        self.gaps_for, self.prediction_levels = gaps_for, tuple(levels)

    def set_leader(self, leader: Run | Calls) -> None:
        """Take the run whose calls all others are believed to make, or what is known of it."""
        self.leader = leader

    def ask_before_calls(self, checkpoint: Callable[[], None]) -> None:
        """Call `checkpoint` before every model call."""
        self.checkpoint = checkpoint

    @property
    def noise_shares(self) -> Tensor:
        like = torch.zeros(1)
        pairs = [coefficients(self._model_sampling, sigma, like) for sigma in self.sigmas.float().cpu()]
        return torch.tensor([scale / (alpha + scale) for alpha, scale in pairs])

    @property
    def stochastic(self) -> bool:
        if self._stochastic is None:
            recipes = [Recipe(0, 0), Recipe(0, 1)]
            probe = Probe(*(self.start(recipe) for recipe in recipes))
            self._guided(probe, 1, torch.zeros_like(pack(self.graph.latent["samples"])), self.sigmas, 0, self.graph.guider)
            self._stochastic = probe.stochastic
        return self._stochastic

    @property
    def _model_sampling(self) -> Any:
        return self.graph.guider.model_patcher.get_model_object("model_sampling")

    @property
    def why_one_by_one(self) -> list[str]:
        """Why candidates do not share model calls, in words; empty if they do."""
        found = self.limits.shared.reason if self.limits.shared is not None else ""
        adaptive = ADAPTIVE if self._adaptive else ""
        return [*self.why_alone, *self.why_one_a_call, *filter(None, (found, adaptive, self.limits.unshared))]

    @property
    def check_calls(self) -> int:
        """Latent rows of the model calls that were made to check shared ones, or given up for what was found."""
        return 0 if self.limits.shared is None else self.limits.shared.calls

    @property
    def memory_notes(self) -> list[str]:
        """What came of it that memory had no room for more runs, in words; empty if it had."""
        if not (self.limits.ran_out or self.budget.repeated):
            return []
        why = RAN_OUT if self.limits.ran_out else NO_ROOM
        return [why.format(most=self.limits.most_in_flight, calls=self.budget.repeated)]

    @property
    def max_rows(self) -> int:
        """Most latent rows in one model call, as memory allows so far."""
        return self.limits.max_rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (R, ...) of one candidate's latent, packed if nested."""
        return tuple(pack(self.graph.latent["samples"]).shape)

    @property
    def looks_halfway(self) -> bool:
        return not self.why_alone

    @property
    def fixed_steps(self) -> bool:
        return not self._adaptive

    @property
    def known_steps(self) -> bool:
        return calls_every_step(self.graph.sampler)

    @property
    def uneven(self) -> str:
        return self.limits.uneven

    @property
    def _adaptive(self) -> bool:
        return is_adaptive(self.graph.sampler)

    @property
    def wave(self) -> int:
        return ALONE_WAVE if self.why_alone else int(min(max(MIN_WAVE, self.max_rows), self.limits.most_in_flight))

    def draw(self, seed: int) -> Tensor:
        """Return the noise (R, ...) that the stock noise node gives for `seed`, packed, and leave the state that it leaves."""
        return self._noise.draw(seed)

    def start(self, recipe: Recipe, keep_records: bool | Sequence[float] = False) -> Trajectory:
        """Prepare the first run of a recipe."""
        if recipe.jitter is not None:
            self._guiders.check()
        noise = self._noise.of(recipe)
        run = self._trajectory(self.sigmas, recipe.seed, noise, keep_records=keep_records, rng=take_rng(self.device))
        run.jitter = recipe.jitter
        return run

    def branch(self, record: CallRecord, cut: BranchPoint, keep_records: bool | Sequence[float] = False) -> Trajectory:
        """Prepare a run from a recorded model call of another, renoised or not, with its own seed.

        Args:
            record: one of that run's answered calls.
            cut: noise level to start from, seeds.
            keep_records: as for `start`.
        """
        tail = self.sigmas[self.sigmas < cut.renoise_to * (1 - 1e-6)].to(torch.float32)
        sigmas = torch.cat([torch.tensor([cut.renoise_to], dtype=torch.float32), tail.cpu()])
        eps = self.draw(cut.noise_seed)
        rng = take_rng(self.device)
        twin, renoised = (record, None) if cut.renoise_to == cut.sigma else (None, (cut.sigma, eps))
        run = self._trajectory(
            sigmas, cut.seed, None, at=record.x, renoised=renoised, twin=twin, keep_records=keep_records, rng=rng
        )
        run.jitter, run.gaps, run.noted = record.jitter, list(record.gaps[:-1]), dict(record.noted)
        return run

    def advance(self, runs: Sequence[Trajectory], until_sigma: float = 0.0) -> None:
        """Advance runs to the cut or the end, in one `guider.sample` or, if they run alone, in one each.

        Hook keyframes are state of the model and only move forward: with them, one for each noise level to go on from.
        """
        todo = [run for run in runs if run.alive]
        if self._nothing_drawn and len(todo) > 1 and self.looks_halfway:
            self._advance(todo, max(until_sigma, float(self.sigmas[1])))
            self._refuse_same([run.pending.x for run in todo if run.pending is not None])
        self._advance(todo, until_sigma)
        if self._nothing_drawn:
            self._ended += [run.result for run in todo if run.result is not None]
            self._refuse_same(self._ended)

    def decode(self, latent: Any, preview: bool = False) -> Tensor:
        """Return the pictures (F, H, W, 3) of one latent through the stock decode node."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        vae = self.graph.preview_vae if preview and self.graph.preview_vae is not None else self.graph.vae
        samples = latent.denoised if isinstance(latent, LeftoverNoise) else latent
        if samples.is_nested:  # the picture comes first: newer cores' decode node picks it too
            samples = samples.unbind()[0]
        images = VAEDecode().decode(vae, {**self.graph.latent, "samples": samples})[0]
        return clamped(images[..., :3].float()).cpu()

    def draft(self, steps: int) -> ComfySession:
        """Return the session over `steps` of the user's steps, evenly spread, the first and last sigma kept.

        A deterministic sampler is drafted by euler: it solves the same equation, and in few steps better than the
        samplers of higher order, which need many (bench/ranks.py).
        """
        picked = torch.linspace(0, len(self.sigmas) - 1, steps + 1).round().long()
        other = object.__new__(ComfySession)
        other.__dict__.update(self.__dict__)
        other.sigmas, other._ended, other._stochastic, other.leader = self.sigmas[picked], [], None, None
        sampler = self.graph.sampler if self.stochastic else euler_like(self.graph.sampler)
        other.graph = replace(self.graph, sigmas=other.sigmas, sampler=sampler)
        return other

    def begin_anew(self, budget: Budget) -> ComfySession:
        """Return a session of the same graph for a search that begins anew."""
        return ComfySession(self.graph, budget, batching=self._batching, called=self._called, shared=self.limits.shared)

    def _trajectory(self, sigmas: Tensor, seed: int, noise: Tensor | None, *, rng: RngState, **more: Any) -> Trajectory:
        return self.limits.add(Trajectory(
            self.graph.sampler, sigmas, noise, seed, rng, alone=bool(self.why_alone),
            prediction_levels=self.prediction_levels, by_steps=not is_core(self.graph.sampler),
            starting=self._starting, **more,
        ))  # fmt: skip

    def _advance(self, runs: Sequence[Trajectory], until_sigma: float) -> None:
        if self.why_alone:
            until_sigma = 0.0
        elif not self.limits.uneven:
            self._in_waves(runs, until_sigma, math.inf)
        if self.why_alone or self.limits.uneven:
            there = [r.pending is not None and not r.goes_to(until_sigma, float(r.pending.sigma.max())) for r in runs]
            self._in_waves([run for run, is_there in zip(runs, there, strict=True) if not is_there], until_sigma, 1)

    def _in_waves(self, runs: Sequence[Trajectory], until_sigma: float, most: float) -> None:
        """Advance runs, `most` together and no more than may be in flight, until the budget or a run that differs ends it.

        Those that memory had no room for are started anew once the others have come that far.
        """
        todo = [run for run in runs if not run.was_left_at(until_sigma)]
        while todo := [run for run in todo if run.alive]:  # the user may have dropped some since
            wave = self._with_room(todo, most)
            if not all([self._sample(group, until_sigma) for group in self._rounds(wave)]):
                return
            todo = [run for run in todo if run not in wave or run.fell]

    def _with_room(self, todo: Sequence[Trajectory], most: float) -> list[Trajectory]:
        """Return which of some runs to advance now, suspended ones first; let go of others that leave no room for them."""
        room = self.limits.most_in_flight
        count = int(min(most, room, len(todo)))
        if len(self.limits.runs) <= room:
            return list(todo[:count])
        wave = sorted(todo, key=lambda run: not run.in_flight)[:count]
        others = [run for run in self.limits.in_flight if run not in wave]
        for run in others[::-1][: max(0, len(others) + count - int(room))]:  # candidate 0 last
            run.let_go()
        return [run for run in todo if run in wave]

    def _refuse_same(self, xs: Sequence[Tensor]) -> None:
        """Raise if runs from a noise of zeros stay the same; ask no more once two differ."""
        if len(xs) < 2:
            return
        if torch.equal(xs[0], xs[1]):
            raise ValueError(
                "noise: it is all zero and this sampler draws none of its own, so that every candidate is the same "
                "picture: connect a noise, or use an ancestral or SDE sampler"
            )
        self._nothing_drawn = False

    def _rounds(self, runs: list[Trajectory]) -> list[list[Trajectory]]:
        """Return the runs in groups that one `guider.sample` can advance, in order: it has one conditioning."""
        keyframes = has_keyframes(self.graph.guider)
        groups: dict[Any, list[Trajectory]] = {}
        for run in runs:
            levels = (id(run) if self._adaptive else (run.segment(), tuple(run.behind))) if keyframes else ()
            groups.setdefault((run.jitter, levels), []).append(run)
        return list(groups.values())

    def _sample(self, runs: list[Trajectory], until_sigma: float) -> bool:
        """Make one round: one `guider.sample` of the user's guider with the carrier as its sampler.

        Returns:
            Whether it came to its end.
        """
        repeats = 1 if self.why_alone else self.limits.together(len(runs), self.shape[0])
        leftover = float(runs[0].sigmas[-1]) > CLEAN
        guider = self._guiders.get(runs[0].jitter)

        def enter(inside: Any, options: dict[str, Any]) -> None:
            if runs[0].jitter is not None:
                check_entered(guider, inside)
            replay_keyframes(inside, options, runs)

        carrier = LockstepSampler(
            runs, until_sigma, self.limits, alone=bool(self.why_alone), denoised_too=leftover,
            whole_segments=self._batching == "on" or has_keyframes(self.graph.guider),
            gaps=bool(self.gaps_for), predictions=self.prediction_levels, on_enter=enter,
            leader=None if self._adaptive else self._leading,
        )  # fmt: skip
        if self.why_alone:
            runs[0].put_rng(self.device)
        noise = runs[0].start_noise(pack(self.graph.latent["samples"]))
        out = self._carried(carrier, repeats, noise, guider)
        per_run = self.graph.latent["samples"].shape[0]

        def part(block: int, index: int) -> Any:
            place = block * len(runs) + index
            return to_intermediate(rows_of(out, place * per_run, per_run)) if carrier.whole[place] else None

        for index, run in enumerate(runs):
            if run.denoised is not None or run.finished:
                run.latent = part(0, index)
            if leftover and run.finished:
                run.latent = LeftoverNoise(run.latent, part(1, index))
            if run.finished:
                levels = enumerate(self.prediction_levels, 1 + leftover)
                run.predictions = {level: part(block, index) for block, level in levels if level in run.noted}
                self._compare_ended(run)
        return not carrier.stopped

    def _compare_ended(self, run: Trajectory) -> None:
        """Note if an ended whole run made fewer calls than the leader's."""
        leader = None if self._adaptive else self._leading
        if leader is not None and leader.finished and run.at is None and len(run.levels) < len(leader.levels):
            made = f"a run ended after {len(run.levels)} model calls, candidate 0 after {len(leader.levels)}"
            self.limits.uneven = self.limits.uneven or made

    def _carried(self, carrier: LockstepSampler, repeats: int, noise: Tensor, guider: Any) -> Any:
        """Have a guider carry runs on; where it fails to prepare for several candidates, for one."""
        first, shared = carrier.trajectories[0], self.limits.shared
        arguments = (noise, first.sigmas, first.seed, guider)
        try:
            return self._guided(carrier, repeats, *arguments)
        except Exception as error:
            if carrier.entered or repeats == 1 or shared is None or not shared.is_fault(error):
                raise
            shared.failed(error)
        self.limits.max_rows = 1
        try:
            return self._guided(carrier, 1, *arguments)
        except Exception as error:
            shared.failed_alone(error)
            raise

    def _guided(self, sampler: Any, repeats: int, noise: Tensor, sigmas: Tensor, seed: int, guider: Any) -> Any:
        """Run a SAMPLER inside a guider, over `repeats` candidates' rows of the packed `noise`."""
        latent = self.graph.latent["samples"]
        return guider.sample(
            join([unpack_like(noise, latent)] * repeats), join([latent] * repeats), sampler, sigmas,
            denoise_mask=self.graph.latent.get("noise_mask"), callback=None, disable_pbar=True, seed=seed,
        )  # fmt: skip

    @property
    def _leading(self) -> Any:
        """The leader's run itself, if it was made in this session; else what is known of it."""
        return getattr(self.leader, "real", None) or self.leader

    def _may_call(self, runs: Sequence[Trajectory]) -> bool:
        """Whether the budget allows a model call of some runs; what some of them repeat is paid for."""
        first = [run for run in runs if not run.repeats]
        if not first:
            return self.budget.allows_repeats()
        rows = sum(run.request.x.shape[0] for run in first)
        allowed = self.budget.allows(rows, math.inf if self.budget.run_cost is not None else self._least(first, rows))
        if not (allowed or self.limits.uneven) and self.budget.run_cost is None:
            self.limits.uneven, self.budget.refused = MORE_CALLS, False
        return allowed

    def _least(self, runs: Sequence[Trajectory], rows: int) -> float:
        """Return the NFE that candidate 0's run takes at least, while that is not known; infinite for its own calls.

        That is the calls so far and, where the sampler is known to make them, one for each step ahead.

        Args:
            runs: those of the next call.
            rows: latent rows of that call.
        """
        leader = self._leading
        leading = sum(run.request.x.shape[0] for run in runs if run is leader)
        if leader is None or leading == rows or getattr(leader, "repeats", False):
            return math.inf
        least = leader.nfe + leading
        if self.known_steps:
            done = [*leader.levels, *([float(leader.request.sigma.max())] if leading else [])]
            below = min(done, default=math.inf) * (1 - 1e-5)
            ahead = sum(level < below for level in self.sigmas[:-1].tolist())
            least += ahead * (leading or leader.nfe // max(len(leader.levels), 1))
        return least

    def _weigh(self, run: Trajectory) -> None:
        """Look at what the first run that makes its call 1, 2, 3, 5, 9, ... holds: all that are under way have to fit."""
        made = len(run.levels)
        if self._room is not None and made & (made - 1) == 0 and made not in self._weighed:
            self._weighed.add(made)
            self._room.held = max(self._room.held, held_bytes(run))
            self.limits.most_in_flight = min(self.limits.most_in_flight, self._room.runs(self.max_rows))

    def _before_call(self) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.checkpoint()

    def _count(self, runs: Sequence[Trajectory], denoised: Tensor) -> None:
        repeated = sum(run.request.x.shape[0] for run in runs if run.repeats)
        self.budget.count(denoised.shape[0] - repeated, repeated)
        self._weigh(runs[0])
        if self.gaps_for and keeps_guidance(self.graph.guider) and all(map(math.isnan, runs[0].gaps)):
            raise ValueError(f"verifier '{self.gaps_for}': {NO_GAP}")
        self._called(runs, denoised)
