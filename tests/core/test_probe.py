"""Does a sampler draw noise of its own? Asked of every sampler ComfyUI has, without a model call."""

from __future__ import annotations

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.samplers
from searching import parts

from noise_search.nodes.adapter.session import ComfySession
from noise_search.nodes.run.runner import graphs
from noise_search.search.base.budget import Budget
from toys import counted, run_node

DETERMINISTIC = {
    "euler", "euler_cfg_pp", "heun", "heunpp2", "dpm_2", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2m", "dpmpp_2m_cfg_pp",
    "ipndm", "ipndm_v", "deis", "res_multistep", "res_multistep_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp",
    "ddim", "uni_pc", "uni_pc_bh2", "exp_heun_2_x0",
}  # fmt: skip


@pytest.mark.parametrize("name", comfy.samplers.SAMPLER_NAMES)
@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_which_samplers_draw_noise(kind, name):
    graph = parts(kind, name, steps=6)
    (noise,) = run_node("RandomNoise", noise_seed=3)
    (made,) = graphs(noise, *(graph[key] for key in ("guider", "sampler", "sigmas", "latent_image")), None)
    session = ComfySession(made, Budget(4))
    with counted() as calls:
        stochastic = session.stochastic
    assert calls.rows == 0 == session.budget.nfe
    assert stochastic == (name not in DETERMINISTIC)
