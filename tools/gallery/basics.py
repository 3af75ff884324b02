"""The first examples: what a search is, its parts, and what can be done with its results."""

from __future__ import annotations

from dataclasses import replace

from .files import AESTHETIC, CLIP, IMAGE_REWARD
from .parts import (
    JUDGE,
    MODEL,
    PROMPTS,
    RESULT,
    RUN,
    SEARCH,
    SEED,
    Graph,
    Group,
    Node,
    advanced_search,
    checkpoint,
    clip_score,
    latent,
    note,
    pick_score,
    plot,
    prompts,
    recipe,
    report,
    run,
    save,
    search,
)  # fmt: skip

RECIPE = '{"noise_search": 1, "noise": "675941448269958", "seed": "675941448269958"}'


def text_to_image() -> Graph:
    text = """
### Search instead of re-rolling
This node takes the place of a **KSampler** and a **VAE Decode**. It tries many seeds for the price of *budget* whole images,
lets a *verifier* score them, and returns the best. Your own seed is always one of them.

**Press Run.** Budget 16 takes as long as 16 pictures. The plot shows the best score so far; the dashed line is your own seed,
what a KSampler would have given you.

**Change:** the prompt (encoder and verifier both read it) · your checkpoint, size, steps and cfg · *budget*: 4 to 64.

**Needed in models/clip_vision:** model.safetensors of openai/clip-vit-large-patch14, saved as
*clip-vit-large-patch14.safetensors*.
"""
    return Graph("text_to_image_search", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · Verifier: what is good", JUDGE, ((clip_score(),),)), note(text, (362, 300))),
        (Group("3 · Search", SEARCH, ((search(keep=4),),)),),
        (Group("4 · Result", RESULT, ((save(title="Save Image: the best, best first"), plot()), (report(),))),),
    ))  # fmt: skip


def advanced() -> Graph:
    guider = Node("guider", "CFGGuider", {"cfg": RUN["cfg"]},
                  {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0)}, (280, 0))  # fmt: skip
    noise, sampler, sigmas = run(280)
    method = Node("method", "NSHalvingSearch", {"first_cut": 0.25, "second_cut": 0.5, "cut_by": "steps"}, size=(330, 0))
    limits = Node("limits", "NSBudget", {"max_seconds": 600.0}, size=(330, 0))
    text = """
### Any guider, sampler and sigmas
The search node takes the place of **SamplerCustomAdvanced**: put your own guider, sampler and scheduler nodes here.

**Halving Search** starts about 32 seeds for a budget of 16, scores them unfinished after 25 % and 50 % of the steps,
and drops the worse.
**Search Limits** ends the search after 600 seconds, whatever the budget says.

**Reuse:** copy the recipe into the workflow *reuse_a_winner*.
"""
    return Graph("advanced_search", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · How an image is made", PROMPTS, ((noise, guider, sampler, sigmas),)), note(text, (312, 270))),
        (Group("3 · Verifier and method", JUDGE, ((clip_score(), method, limits),)),),
        (Group("4 · Search", SEARCH, ((advanced_search(links={"method": ("method", 0), "limits": ("limits", 0)}), recipe()),)),),
        (Group("5 · Result", RESULT, ((save(), plot()),)),),
    ))  # fmt: skip


def reuse() -> Graph:
    guider = Node("guider", "CFGGuider", {"cfg": RUN["cfg"]},
                  {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0)}, (320, 0))  # fmt: skip
    noise, sampler, sigmas = run(320)
    render = Node(
        "render", "NSRenderCandidate", {"recipe": RECIPE},
        {"noise": ("noise", 0), "guider": ("guider", 0), "sampler": ("sampler", 0), "sigmas": ("sigmas", 0),
         "latent_image": ("latent", 0), "vae": ("ckpt", 2)}, (320, 300),
    )  # fmt: skip
    text = """
### Render a winner again
Paste the **recipe** of a search into *Render Candidate*. With the same model, prompt, cfg, sampler, scheduler, steps, size
and seed as in the search you get the same picture, for the price of one image.

Then vary one thing: a LoRA, another word in the prompt. The layout mostly stays. For other samplers or more steps take the
noise alone: *Noise from Recipe*, cuts at *leave out*, and stock sampling.

The recipe here is a sample: a seed that a search found.
"""
    return Graph("reuse_a_winner", (
        (Group("1 · As in the search", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · Settings, as in the search", PROMPTS, ((noise, guider, sampler, sigmas),)),),
        (Group("3 · Recipe", SEARCH, ((render,),)), note(text, (352, 260))),
        (Group("4 · Result", RESULT, ((save(("render", 0), (460, 540), prefix="noise-search-again"),),)),),
    ))  # fmt: skip


def score_batch() -> Graph:
    sample = Node(
        "sample", "KSampler", {"seed": SEED, "control_after_generate": "fixed", **RUN, "denoise": 1.0},
        {"model": ("ckpt", 0), "positive": ("positive", 0), "negative": ("negative", 0), "latent_image": ("latent", 0)},
        (320, 480),
    )  # fmt: skip
    decode = Node("decode", "VAEDecode", {}, {"samples": ("sample", 0), "vae": ("ckpt", 2)}, (320, 0))
    both = Node(
        "both", "NSVerifierEnsemble", {"weight_1": 1.0, "weight_2": 0.3, "mode": "rank mean"},
        {"verifier_1": ("clipscore", 0), "verifier_2": ("statistics", 0)}, (330, 500),
    )  # fmt: skip
    score = Node("score", "NSScoreImages", {"keep": 0}, {"images": ("decode", 0), "verifier": ("both", 0)}, (260, 0))
    text = """
### Pick the best of a batch
Eight pictures of a stock KSampler, scored by an ensemble and sorted, **best first**. No search: use it on any pictures,
loaded ones too.

The ensemble ranks by how well the picture fits the prompt (weight 1) and a little by sharpness, exposure and color
(weight 0.3). Add your own verifiers.

*keep* 1 puts out the best only. *order* says which pictures of the batch they were.
"""
    return Graph("score_a_batch", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent(8)),)),),
        (Group("2 · Eight pictures", PROMPTS, ((sample, decode),)), note(text, (352, 220))),
        (Group("3 · Verifiers", JUDGE, (
            (clip_score(),
             Node("statistics", "NSImageStatistics", {}, size=(330, 0))), (both,))),),
        (Group("4 · Score and sort", RESULT, (
            (score, Node("order", "PreviewAny", {}, {"source": ("score", 4)}, (260, 120), "Order: places in the batch")),
            (Node("preview", "PreviewImage", {}, {"images": ("score", 0)}, (460, 560), "Best first"),),
        )),),
    ))  # fmt: skip


def any_nodes() -> Graph:
    image = Node("image", "NSGraphImage", size=(280, 0))
    crop = Node(
        "crop", "ImageCrop", {"width": 256, "height": 512, "x": 0, "y": 0}, {"image": ("image", 0)}, (280, 190), "Cut out a part"
    )
    part = replace(clip_score(), key="part", values={"model_name": CLIP["name"], "prompt": "a red fox"}, links={},
                   title="CLIP Score: what must be in it")  # fmt: skip
    score = Node("score", "NSScoreImages", {"keep": 0}, {"images": ("crop", 0), "verifier": ("part", 0)}, (280, 0),
                 "Score of the part")  # fmt: skip
    verifier = Node("graph", "NSScoreFromGraph", {}, {"score": ("score", 3)}, (280, 0))
    both = Node("both", "NSVerifierEnsemble", {"weight_1": 1.0, "weight_2": 1.0, "mode": "rank mean"},
                {"verifier_1": ("clipscore", 0), "verifier_2": ("graph", 0)}, (330, 500))  # fmt: skip
    text = """
### Any nodes as a verifier
What lies between **Candidate Image** and **Score from Graph** is run for each candidate. Here: the left half is cut out, and
CLIP scores it against *a red fox*. Together with the score of the whole picture, it searches for the fox on the left.

**Change:** put any nodes there that turn an image into a number: score nodes of other packs, a face crop, math.
"""
    return Graph("score_with_any_nodes", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · Nodes that score a part", PROMPTS, ((part, image, crop), (score, verifier))), note(text, (352, 250))),
        (Group("3 · The whole and the part", JUDGE, ((clip_score(), both),)),),
        (Group("4 · Search", SEARCH, ((search(verifier="both"),),)),),
        (Group("5 · Result", RESULT, ((save(), plot()),)),),
    ))  # fmt: skip


def paper_ensemble() -> Graph:
    aesthetic = Node("aesthetic", "NSAestheticScore", {"model_name": AESTHETIC["name"], "clip_name": CLIP["name"]},
                     size=(330, 0), models=(AESTHETIC, CLIP))  # fmt: skip
    reward = Node("reward", "NSImageReward", {"model_name": IMAGE_REWARD["name"]}, {"prompt": ("prompt", 0)}, (330, 150),
                  models=(IMAGE_REWARD,))  # fmt: skip
    pick = pick_score("PickScore: held out, never chooses")
    both = Node("both", "NSVerifierEnsemble", {"weight_1": 1.0, "weight_2": 1.0, "weight_3": 1.0, "mode": "rank mean"},
                {"verifier_1": ("aesthetic", 0), "verifier_2": ("clipscore", 0), "verifier_3": ("reward", 0)},
                (330, 500))  # fmt: skip
    text = """
### The paper's ensemble
Aesthetics, fit to the prompt and human preference, joined by their mean rank (arXiv 2501.09732). **PickScore** never chooses:
the report shows by it whether the winner is better, or only fooled the three.

**Needed in models/clip_vision**
- *clip-vit-large-patch14.safetensors*: model.safetensors of openai/clip-vit-large-patch14, renamed
- *PickScore_v1.safetensors*: model.safetensors of yuvalkirstain/PickScore_v1, renamed

**Needed in models/verifiers**
- *ImageReward.pt* of THUDM/ImageReward
- *vocab.txt* of google-bert/bert-base-uncased
- *sac+logos+ava1-l14-linearMSE.pth* of github.com/christophschuhmann/improved-aesthetic-predictor

All but the last are on huggingface.co. ComfyUI lists what is missing, but never *vocab.txt*; where it offers no download,
fetch the file yourself.
"""
    return Graph("paper_ensemble", (
        (note(text, (380, 440)),),
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · The paper's verifiers", JUDGE, ((aesthetic, clip_score(), reward),)),),
        (Group("3 · Ensemble, and a witness", PROMPTS, ((both, pick),)),),
        (Group("4 · Search", SEARCH, ((search(verifier="both", links={"held_out": ("pick", 0)}),),)),),
        (Group("5 · Result", RESULT, ((save(), plot()), (report(),))),),
    ))  # fmt: skip


BASICS = [text_to_image(), advanced(), reuse(), score_batch(), any_nodes(), paper_ensemble()]
