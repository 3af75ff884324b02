"""Looking half-way, and branching: what a suspended run shows, and runs that start where others were left."""

from __future__ import annotations

import inspect
import math

import pytest

pytestmark = pytest.mark.comfy

from inprocess import boot, run_node

boot()

import comfy.model_patcher
import comfy.model_sampling
import comfy.samplers
import comfy.utils
import comfy_extras.nodes_model_advanced as model_nodes
import torch
from comfy.nested_tensor import NestedTensor
from comfy_extras.nodes_custom_sampler import Guider_DualCFG
from sessions import flat, relative, session_for

from noise_search.search.core.replay import replay
from noise_search.search.lockstep.noise_scaling import noise_that_gives, renoise, starts_at_maximum
from noise_search.search.noise.recipe import BranchPoint, Recipe, derived_seed
from toys import cond, counted, empty_latent, guider, mask, sampler, sigmas_for, stock, toy_model

STEPS = 6
SEED = 5


def latent_for(kind: str, what: str = "empty") -> dict:
    """An empty latent; "img2img": a picture; "mask": a picture, of which the left half is redrawn."""
    latent = empty_latent(kind)
    if what == "empty":
        return latent
    samples, generator = latent["samples"], torch.Generator().manual_seed(7)
    if samples.is_nested:
        parts = [torch.randn(part.shape, generator=generator) for part in samples.unbind()]
        latent["samples"] = NestedTensor(parts)
    else:
        channels = 16 if kind == "flow" else samples.shape[1]
        latent["samples"] = torch.randn(1, channels, *samples.shape[2:], generator=generator)
    if what == "mask":
        latent["noise_mask"] = nested_mask(latent) if latent["samples"].is_nested else mask(latent)
    return latent


def nested_mask(latent: dict):
    """A mask as this core takes it: one for each part or, on older cores, one along the packed latent."""
    parts = [torch.ones(part.shape) for part in latent["samples"].unbind()]
    parts[0][..., parts[0].shape[-1] // 2 :] = 0.0
    one_each = "denoise_mask.is_nested" in inspect.getsource(comfy.samplers.CFGGuider.sample)
    return NestedTensor(parts) if one_each else comfy.utils.pack_latents(parts)[0]


class Setup:
    """One graph: a kind of model, a sampler, a latent; `steps` of sigmas."""

    def __init__(self, kind="eps", name="euler", what="empty", *, g=None, denoise=1.0, steps=STEPS):
        self.guider = guider(toy_model(kind)) if g is None else g
        self.sampler = sampler(name) if isinstance(name, str) else name
        self.latent = latent_for(kind, what)
        self.sigmas = sigmas_for(self.guider.model_patcher, steps=steps, denoise=denoise)

    def session(self, **more):
        batching = "on" if self.latent["samples"].is_nested else "auto"  # a model class of the tests
        session = session_for(self.guider, self.sampler, self.sigmas, self.latent, batching=batching, **more)
        assert session.why_alone == []
        return session

    def stock(self, seed=SEED):
        return stock(self.guider, seed, self.sampler, self.sigmas, self.latent)

    def left_at(self, until: float, seed=SEED):
        """A session and a run in it that was suspended below `until`, with its records."""
        session = self.session()
        run = session.start(Recipe(seed, seed), keep_records=True)
        session.advance([run], until)
        return session, run


def cut_at(record, seed=SEED, renoise_to=None, noise_seed=1) -> BranchPoint:
    return BranchPoint(record.sigma, record.sigma if renoise_to is None else renoise_to, noise_seed, seed)


# Looking half-way


@pytest.mark.parametrize("name", ["euler", "heun", "dpm_fast", "uni_pc", "dpmpp_2s_ancestral", "dpm_2", "dpmpp_2m"])
def test_the_cut_is_at_the_model_request(name):
    """Answered are exactly the requests down to the cut, whatever the sampler's steps and callbacks are."""
    setup = Setup(name=name)
    with counted() as alone:
        setup.stock()
    for cut in (float(setup.sigmas[2]), 2.0, 0.3):
        _, run = setup.left_at(cut)
        first_below = next(i for i, sigma in enumerate(alone.sigmas) if sigma < cut)
        assert run.levels == [record.sigma for record in run.records] == alone.sigmas[:first_below]
        assert float(run.pending.sigma.flatten()[0]) == alone.sigmas[first_below]
        run.close()


def test_the_cut_itself_is_answered():
    setup = Setup()
    session, run = setup.left_at(float(setup.sigmas[3]))
    assert run.levels == setup.sigmas[:4].tolist()
    session.advance([run], float(setup.sigmas[3]))
    assert run.levels == setup.sigmas[:4].tolist() and session.budget.nfe == 4  # nothing is done twice


@pytest.mark.parametrize("what", ["empty", "img2img", "mask"])
@pytest.mark.parametrize("kind", ["eps", "v", "flow", "nested"])
def test_a_suspended_run_shows_the_denoised_prediction(kind, what):
    """As stock hands its step callback's `denoised` to the user (the x0 output of SamplerCustomAdvanced)."""
    setup = Setup(kind, what=what)
    process_out = setup.guider.model_patcher.model.process_latent_out
    seen = []
    noise = run_node("RandomNoise", noise_seed=SEED)[0].generate_noise(setup.session().graph.latent)
    setup.guider.sample(
        noise, setup.session().graph.latent["samples"], setup.sampler, setup.sigmas, setup.latent.get("noise_mask"),
        lambda step, denoised, x, steps: seen.append(denoised), disable_pbar=True, seed=SEED,
    )  # fmt: skip
    session, run = setup.left_at(float(setup.sigmas[0]))
    for step in range(1, STEPS):
        want = seen[step - 1]
        got, packed = run.latent, torch.cat([part.flatten() for part in process_out_parts(process_out, want)])
        assert relative(flat(got), packed) < 1e-5
        assert got.is_nested == (kind == "nested")
        if kind == "nested":
            assert [part.shape for part in got.unbind()] == [part.shape for part in setup.latent["samples"].unbind()]
        assert not run.finished
        session.advance([run], float(setup.sigmas[step]))
    if what == "mask" and kind != "nested":
        half = run.latent.shape[-1] // 2
        assert relative(run.latent[..., half:], setup.latent["samples"][..., half:]) < 1e-6


def process_out_parts(process_out, denoised):
    """ComfyUI 0.33 hands callbacks nested predictions, 0.3.75 packed ones."""
    if denoised.is_nested:
        return [process_out(part) for part in denoised.unbind()]
    return [process_out(denoised)]


# Branching without renoise


@pytest.mark.parametrize("what,denoise", [("empty", 1.0), ("mask", 1.0), ("img2img", 0.6), ("mask", 0.6)])
@pytest.mark.parametrize("kind", ["eps", "v", "flow", "flow5d", "nested"])
@pytest.mark.parametrize("name", ["euler", "heun", "euler_cfg_pp"])
def test_a_branch_goes_on_as_the_uncut_run(name, kind, what, denoise):
    """For samplers without memory; its first call is answered from the record."""
    setup = Setup(kind, name, what, denoise=denoise)
    with counted() as alone:
        want = setup.stock()
    for step in (0, 2, 4):
        session, run = setup.left_at(float(setup.sigmas[step]))
        done = run.nfe
        twin = session.branch(run.records[-1], cut_at(run.records[-1]))
        with counted() as calls:
            session.advance([twin])
        assert relative(twin.latent, want) < 1e-5
        assert done + twin.nfe == alone.rows and calls.rows == twin.nfe == session.budget.nfe - done
        run.close()


@pytest.mark.parametrize("kind", ["eps", "flow"])
@pytest.mark.parametrize("what", ["empty", "mask"])
@pytest.mark.parametrize("name,bound", [("dpmpp_2m", 0.01), ("uni_pc", 0.01), ("uni_pc_bh2", 0.01), ("deis", 0.01)])
def test_a_branch_of_a_multistep_sampler_is_close(name, bound, kind, what):
    """It starts without the history of its parent; measured: 0.0002 to 0.0034 after 7 of 16 steps."""
    setup = Setup(kind, name, what, steps=16)
    session, run = setup.left_at(float(setup.sigmas[6]))
    twin = session.branch(run.records[-1], cut_at(run.records[-1]))
    session.advance([twin])
    difference = relative(twin.latent, setup.stock())
    assert 1e-6 < difference < bound


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m", "uni_pc", "euler_ancestral", "dpmpp_sde", "ddim"])
@pytest.mark.parametrize("what", ["empty", "mask"])
def test_a_branch_is_a_stock_run_of_its_segment(name, what):
    """Its noise, sigmas and seed, in the stock node, give its latent."""
    setup = Setup("eps", name, what)
    session, run = setup.left_at(float(setup.sigmas[2]))
    cuts = cut_at(run.records[-1], 77), cut_at(run.records[-1], 78, renoise_to=float(setup.sigmas[1]))
    twins = [session.branch(run.records[-1], cut) for cut in cuts]
    session.advance(twins)
    for twin in twins:
        noise = Given(twin.noise.cpu(), twin.seed)
        want = stock(setup.guider, noise, setup.sampler, twin.sigmas, setup.latent)
        assert relative(twin.latent, want) < 1e-4


class Given:
    def __init__(self, noise, seed):
        self.noise, self.seed = noise, seed

    def generate_noise(self, latent):
        return self.noise


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"])
def test_a_branch_has_its_own_step_noise(name):
    setup = Setup("eps", name)
    session, run = setup.left_at(float(setup.sigmas[2]))
    record = run.records[-1]
    twins = [session.branch(record, cut_at(record, seed)) for seed in (77, 78, 77)]
    session.advance(twins)
    assert relative(twins[0].latent, twins[1].latent) > 1e-2
    assert relative(twins[2].latent, twins[0].latent) < 1e-6


def test_a_branch_draws_global_noise_of_its_own():
    churned = comfy.samplers.ksampler("euler", {"s_churn": 3.0})
    setup = Setup("eps", churned)
    session, run = setup.left_at(float(setup.sigmas[2]))
    record = run.records[-1]
    cuts = [BranchPoint(record.sigma, 2.0 * record.sigma, noise_seed, 7) for noise_seed in (1, 2, 1)]
    twins = [session.branch(record, cut) for cut in cuts]
    session.advance(twins[:2])
    torch.rand(5)
    session.advance(twins[2:])
    assert relative(twins[0].latent, twins[1].latent) > 1e-2
    assert relative(twins[2].latent, twins[0].latent) < 1e-6


# The twin's first call


def first_calls(setup, change=None, seed=SEED) -> int:
    """Model calls of a branch's first request: 0 if it is answered from the record."""
    session, run = setup.left_at(float(setup.sigmas[2]))
    record = run.records[-1]
    if change is not None:
        change(record)
    twin = session.branch(record, cut_at(record, seed))
    session.advance([twin], float(setup.sigmas[2]))
    run.close(), twin.close()
    return twin.nfe


@pytest.mark.parametrize("name", ["euler", "heun", "euler_cfg_pp", "euler_ancestral_cfg_pp", "dpmpp_2m", "uni_pc"])
@pytest.mark.parametrize("what", ["empty", "mask"])
def test_answered_from_the_record(name, what):
    assert first_calls(Setup("eps", name, what)) == 0


@pytest.mark.parametrize("seed,calls", [(SEED, 0), (6, 1)])
def test_ddim_draws_the_noise_around_the_mask_from_the_step_seed(seed, calls):
    """So the first request differs around the mask, unless the seed is the same."""
    assert first_calls(Setup("eps", "ddim", "mask"), seed=seed) == calls


def test_computed_if_x_differs():
    def change(size):
        def apply(record):
            torch.manual_seed(0)
            record.x = record.x + size * record.x.std() * torch.randn_like(record.x)

        return apply

    session, run = Setup().left_at(2.0)
    record = run.records[-1]
    twin = session.branch(record, cut_at(record))
    twin.twin = type(record)(record.x * (1 + 1e-4), *list(vars(record).values())[1:])
    session.advance([twin], record.sigma)
    assert twin.nfe == 1
    assert first_calls(Setup(), change(1.0)) == 0  # the branch starts at what the record says

    twin = session.branch(record, cut_at(record))
    twin.twin = type(record)(record.x * torch.nan, *list(vars(record).values())[1:])
    session.advance([twin], record.sigma)
    assert twin.nfe == 1


def test_computed_if_sigma_differs():
    setup = Setup()
    session, run = setup.left_at(2.0)
    record = run.records[-1]
    twin = session.branch(record, BranchPoint(record.sigma * 1.001, record.sigma * 1.001, 1, SEED))
    session.advance([twin], record.sigma * 1.0005)
    assert twin.nfe == 1


@pytest.mark.parametrize("what", ["empty", "mask"])
def test_computed_after_renoise(what):
    setup = Setup(what=what)
    session, run = setup.left_at(float(setup.sigmas[2]))
    record = run.records[-1]
    twin = session.branch(record, cut_at(record, renoise_to=float(setup.sigmas[1])))
    session.advance([twin])
    assert twin.sigmas.tolist() == setup.sigmas[1:].tolist()
    assert twin.nfe == len(setup.sigmas) - 2


def reads(name):
    """An Euler sampler that sets `name` on its guider, or in its model options, from its step seed."""

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        value = extra_args["seed"] % 2
        if name == "cfg":
            model.inner_model.cfg = 2.0 + value
        else:
            extra_args["model_options"][name] = value
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **extra_args)
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    return comfy.samplers.KSAMPLER(sample)


@pytest.mark.parametrize("name", ["cfg", "disable_cfg1_optimization"])
@pytest.mark.parametrize("seed,calls", [(SEED, 0), (SEED + 2, 0), (SEED + 1, 1)])
def test_computed_if_the_guiders_state_or_the_options_differ(name, seed, calls):
    assert first_calls(Setup(name=reads(name)), seed=seed) == calls


@pytest.mark.parametrize("name,calls", [("euler", 0), ("euler_cfg_pp", 1)])
def test_a_guider_that_goes_on_after_its_post_cfg_functions(name, calls):
    """Guider_DualCFG adds to their result: they cannot be replayed, but a run without its own needs no replay."""
    model = toy_model("eps")
    g = Guider_DualCFG(model)
    g.set_conds(cond(model, 1), cond(model, 3), cond(model, 2))
    g.set_cfg(3.0, 2.0)
    setup = Setup(name=name, g=g)
    assert first_calls(setup) == calls
    session, run = setup.left_at(2.0)
    twin = session.branch(run.records[-1], cut_at(run.records[-1]))
    session.advance([twin])
    assert relative(twin.latent, setup.stock()) < 1e-5


def test_the_graphs_own_post_cfg_functions_are_in_the_record():
    """They ran on the recorded call; the run's own ones are replayed on their result."""
    model = run_node("RescaleCFG", model=toy_model("eps"), multiplier=0.9)[0]
    model = run_node("CFGNorm", model=model, strength=0.5)[0]
    for name in ("euler", "euler_cfg_pp"):
        setup = Setup(name=name, g=guider(model, cfg=6.0))
        session, run = setup.left_at(2.0)
        twin = session.branch(run.records[-1], cut_at(run.records[-1]))
        session.advance([twin])
        assert run.nfe + twin.nfe == STEPS
        assert relative(twin.latent, setup.stock()) < 1e-5


def test_a_runs_own_post_cfg_functions_are_replayed_on_what_they_were_given():
    """They change the answer, by the step seed: the twin's own are applied, the parent's are not."""

    def sample(model, x, sigmas, extra_args=None, callback=None, disable=None):
        strength = 1.0 + 0.1 * (extra_args["seed"] % 5)

        def post_cfg(args):
            return args["denoised"] * strength + 0.1 * args["uncond_denoised"]

        options = extra_args["model_options"].copy()
        options = comfy.model_patcher.set_model_options_post_cfg_function(options, post_cfg)
        for i in range(len(sigmas) - 1):
            denoised = model(x, sigmas[i] * x.new_ones([x.shape[0]]), **{**extra_args, "model_options": options})
            x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
        return x

    model = run_node("RescaleCFG", model=toy_model("eps"), multiplier=0.9)[0]
    setup = Setup(name=comfy.samplers.KSAMPLER(sample), g=guider(model, cfg=6.0))
    session, run = setup.left_at(2.0)
    record = run.records[-1]
    twins = [session.branch(record, cut_at(record, seed)) for seed in (SEED, SEED + 1)]
    session.advance(twins)
    assert [run.nfe + twin.nfe for twin in twins] == [STEPS, STEPS]
    assert relative(twins[0].latent, setup.stock()) < 1e-5
    computed = session.branch(record, cut_at(record, SEED + 1))
    computed.twin = None
    session.advance([computed])
    assert computed.nfe == twins[1].nfe + 1
    assert relative(twins[1].latent, computed.latent) < 1e-5
    assert relative(twins[1].latent, twins[0].latent) > 1e-2


def test_many_twins_of_several_parents():
    """Recorded in shared calls: each parent's rows are its own."""
    setup = Setup(name="euler_cfg_pp")
    session = setup.session(max_rows=4)
    runs = [session.start(Recipe(seed, seed), keep_records=True) for seed in range(4)]
    session.advance(runs, 2.0)
    twins = [session.branch(run.records[-1], cut_at(run.records[-1], run.seed)) for run in runs for _ in range(2)]
    session.advance(twins)
    for index, twin in enumerate(twins):
        assert relative(twin.latent, setup.stock(index // 2)) < 1e-5
        assert twin.nfe + runs[0].nfe == STEPS


def test_a_twin_that_keeps_records_has_the_answered_call_too():
    setup = Setup("eps", "euler_ancestral")
    session, run = setup.left_at(2.0)
    record = run.records[-1]
    twin = session.branch(record, cut_at(record, 77), keep_records=True)
    session.advance([twin], record.sigma)
    assert [r.sigma for r in twin.records] == twin.levels == [record.sigma]
    again = session.branch(twin.records[-1], cut_at(record, 78))
    session.advance([again])
    want = replay(session, Recipe(SEED, SEED, cuts=(cut_at(record, 77), cut_at(record, 78))))
    assert relative(want.latent, again.latent) < 1e-6


# Renoise


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
def test_the_noise_of_a_renoised_start_is_unit_gaussian(kind):
    """Given the latent, x at the cut holds unit noise; so does the start of the branch: exactly, by moments."""
    setup = Setup(kind, what="img2img")
    session = setup.session()
    sampling = setup.guider.model_patcher.get_model_object("model_sampling")
    process_in = setup.guider.model_patcher.model.process_latent_in
    clean = process_in(setup.latent["samples"])
    low, high = float(setup.sigmas[3]), float(setup.sigmas[1])
    run = session.start(Recipe(1, 1), keep_records=True)
    session.advance([run], high)
    found = []
    for seed in range(60):
        record = run.records[-1]
        noise = session.draw(derived_seed(9, seed)).to(clean)
        record.x = sampling.noise_scaling(torch.tensor(low), noise, clean.clone())
        twin = session.branch(record, BranchPoint(low, high, derived_seed(10, seed), seed))
        session.advance([twin], 2 * high)  # no further than its first call
        found.append(twin.noise)
        twin.close()
    flat_noise = torch.stack(found).double().flatten()
    count = flat_noise.numel()
    assert abs(float(flat_noise.mean())) < 5 / math.sqrt(count)
    assert abs(float(flat_noise.var()) - 1.0) < 5 * math.sqrt(2 / count)
    run.close()


@pytest.mark.parametrize("kind", ["eps", "v", "flow"])
def test_renoise_to_the_maximum(kind):
    setup = Setup(kind)
    session, run = setup.left_at(float(setup.sigmas[3]))
    record = run.records[-1]
    twin = session.branch(record, cut_at(record, renoise_to=float(setup.sigmas[0])))
    session.advance([twin])
    assert twin.sigmas.tolist() == setup.sigmas.tolist()
    assert twin.nfe == STEPS and torch.isfinite(twin.latent).all()


# The noise that gives an x


def samplings():
    """Every family of model samplings that ComfyUI's nodes can patch in."""
    ms = comfy.model_sampling
    flow = model_nodes.ModelSamplingSD3().patch(toy_model("flow"), 3.0)[0]

    def made(kind, name):
        class Sampling(kind, name):
            pass

        return Sampling()

    plain = {
        "eps": (ms.ModelSamplingDiscrete, ms.EPS), "v": (ms.ModelSamplingDiscrete, ms.V_PREDICTION),
        "x0": (ms.ModelSamplingDiscrete, ms.X0), "edm": (ms.ModelSamplingContinuousEDM, ms.EDM),
        "v_continuous": (ms.ModelSamplingContinuousV, ms.V_PREDICTION), "cascade": (ms.StableCascadeSampling, ms.EPS),
        "flow": (ms.ModelSamplingDiscreteFlow, ms.CONST), "flux": (ms.ModelSamplingFlux, ms.CONST),
        "lcm": (model_nodes.ModelSamplingDiscreteDistilled, model_nodes.LCM),
        "cosmos": (ms.ModelSamplingContinuousEDM, ms.EDM),
        "cosmos_rflow": (getattr(ms, "ModelSamplingCosmosRFlow", ms.ModelSamplingContinuousEDM), ms.COSMOS_RFLOW),
    }  # fmt: skip
    out = {key: made(*pair) for key, pair in plain.items()}
    out["sd3"] = flow.get_model_object("model_sampling")
    return out


@pytest.mark.parametrize("family", list(samplings()))
@pytest.mark.parametrize("what", ["empty", "img2img"])
def test_the_noise_that_gives_x_through_the_stock_start(family, what):
    """Through KSAMPLER itself, at the largest sigma (where some families scale noise otherwise) and below."""
    sampling = samplings()[family]
    model = type("Wrap", (), {"inner_model": type("Inner", (), {"model_sampling": sampling})()})()
    largest = float(sampling.sigma_max)
    latent = latent_for("eps", what)["samples"]
    x = 3.0 * torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    starts = []

    def stop(model_k, start, sigmas, **kwargs):
        starts.append(start)
        return start

    for first in (largest, 0.7 * largest, 0.05 * largest):
        sigmas = torch.tensor([first, 0.0])
        noise = noise_that_gives(sampling, x, sigmas[0], latent)
        comfy.samplers.KSAMPLER(stop).sample(model, sigmas, {}, None, noise, latent, None, True)
        assert relative(starts[-1], x) < 1e-5
        assert starts_at_maximum(sampling, float(sigmas[0])) == comfy.samplers.KSAMPLER(stop).max_denoise(model, sigmas)


@pytest.mark.parametrize("family", list(samplings()))
def test_renoise_composes_for_every_family(family):
    """Up in two steps is up in one: the same coefficient of x, and the same variance added."""
    sampling = samplings()[family]
    top = 0.9 * float(sampling.sigma_max)
    a, b, c = (torch.tensor(share * top) for share in (0.1, 0.4, 1.0))
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    def parts(low, high):
        return float(renoise(sampling, one, low, high, zero)), float(renoise(sampling, zero, low, high, one))

    (r1, n1), (r2, n2), (r, n) = parts(a, b), parts(b, c), parts(a, c)
    assert math.isclose(r1 * r2, r, rel_tol=1e-5)
    assert math.isclose((r2 * n1) ** 2 + n2**2, n**2, rel_tol=1e-4)


# Recipes with cuts


@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmpp_2m", "heun", "euler_cfg_pp", "dpm_fast", "ddim"])
@pytest.mark.parametrize("kind,what", [("eps", "mask"), ("flow", "empty"), ("nested", "img2img")])
def test_a_recipe_with_cuts_is_replayed_in_a_fresh_session(kind, what, name):
    """Renoised, then cut again without: the recipe alone gives the same latent."""
    setup = Setup(kind, name, what)
    session = setup.session()
    runs = [session.start(Recipe(seed, seed), keep_records=True) for seed in (SEED, 9)]
    session.advance(runs, float(setup.sigmas[2]))
    record = runs[0].records[-1]
    first = BranchPoint(record.sigma, max(record.sigma, float(setup.sigmas[1])), 31, 32)  # dpm_fast: still at the first
    middle = session.branch(record, first, keep_records=True)
    session.advance([middle], float(setup.sigmas[3]))
    record = middle.records[-1]
    second = BranchPoint(record.sigma, record.sigma, 33, 34)
    last = session.branch(record, second)
    session.advance([last, runs[1]])

    recipe = Recipe.from_json(Recipe(SEED, SEED, cuts=(first, second)).to_json())
    assert relative(replay(Setup(kind, name, what).session(), recipe).latent, last.latent) < 1e-6


def test_a_recipe_of_other_sigmas_is_an_error():
    setup = Setup()
    recipe = Recipe(SEED, SEED, cuts=(BranchPoint(1.2345, 2.0, 1, 2),))
    with pytest.raises(ValueError, match="no model call at its cut, sigma 1.2345"):
        replay(setup.session(), recipe)


def test_a_recipe_with_a_cut_where_runs_are_never_suspended():
    """Batching off: the first segment is run to its end, and the branch leaves it where the recipe says."""
    setup = Setup(name="euler_ancestral")
    session, run = setup.left_at(float(setup.sigmas[2]))
    cut = cut_at(run.records[-1], 77, renoise_to=float(setup.sigmas[1]))
    twin = session.branch(run.records[-1], cut)
    session.advance([twin])
    alone = session_for(setup.guider, setup.sampler, setup.sigmas, setup.latent, batching="off")
    assert relative(replay(alone, Recipe(SEED, SEED, cuts=(cut,))).latent, twin.latent) < 1e-6
