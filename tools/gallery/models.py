"""The first search with other models, each loaded and set as in ComfyUI's own template of it."""

from __future__ import annotations

from . import files
from .parts import (
    JUDGE,
    MODEL,
    PROMPTS,
    RESULT,
    SEARCH,
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
    prompt_and_positive,
    prompts,
    recipe,
    report,
    run,
    save,
    search,
    text_encoder,
    unet,
    vae,
    zeroed_negative,
)  # fmt: skip

NEEDS_CLIP = """
**Needed for the verifier, in models/clip_vision:** model.safetensors of openai/clip-vit-large-patch14, saved as
*clip-vit-large-patch14.safetensors*."""
VIDEO_PROMPT = "a fox moving quickly in a beautiful winter scenery nature trees mountains daytime tracking camera"
SIGN_PROMPT = 'a bakery window at dusk, a hand-painted sign on the glass says "FRESH BREAD", warm light, photograph'
UNET, CLIP, VAE = ("unet", 0), ("clip", 0), ("vae", 0)


def shift(value: float, model: tuple[str, int] = UNET, type: str = "ModelSamplingAuraFlow") -> Node:
    return Node("shift", type, {"shift": value}, {"model": model}, (310, 0))


def sdxl() -> Graph:
    both = Node("both", "NSVerifierEnsemble", {"weight_1": 1.0, "weight_2": 1.0, "mode": "rank mean"},
                {"verifier_1": ("clipscore", 0), "verifier_2": ("pick", 0)}, (330, 500))  # fmt: skip
    text = f"""
### SDXL, judged by two
**CLIP Score** asks whether the picture shows the prompt, **PickScore** which one people would choose. The ensemble ranks by
both, so that neither is easily fooled.

Without a *method* the search does what measured best: drafts first, then it refines the winner. *keep* 2 gives the
two best that are different pictures.

**Change:** prompt · checkpoint (any SDXL model; set its own steps and cfg) · *budget*, 4 to 64.
{NEEDS_CLIP} And model.safetensors of yuvalkirstain/PickScore_v1 as *PickScore_v1.safetensors*.
"""
    sampler = search(verifier="both", keep=2, steps=25, cfg=8.0, sampler_name="euler", scheduler="normal")
    return Graph("sdxl_search", (
        (Group("1 · SDXL, prompt, size", MODEL, ((checkpoint(files.SDXL), *prompts(), latent(side=1024)),)),),
        (Group("2 · Two verifiers", JUDGE, ((clip_score(), pick_score()),)), note(text, (362, 300))),
        (Group("3 · Together", PROMPTS, ((both,),)),),
        (Group("4 · Search", SEARCH, ((sampler,),)),),
        (Group("5 · Result", RESULT, ((save(title="Save Image: the best, best first"), plot()), (report(),))),),
    ))  # fmt: skip


def flux() -> Graph:
    clip = Node(
        "clip", "DualCLIPLoader", {"clip_name1": files.CLIP_L["name"], "clip_name2": files.T5["name"], "type": "flux"},
        models=(files.CLIP_L, files.T5), size=(310, 0),
    )  # fmt: skip
    guidance = Node("guidance", "FluxGuidance", {"guidance": 3.5}, {"conditioning": ("positive", 0)}, (300, 0))
    guider = Node("guider", "BasicGuider", {}, {"model": UNET, "conditioning": ("guidance", 0)}, (300, 0))
    noise, sampler, sigmas = run(300, UNET, steps=20, sampler_name="euler", scheduler="simple")
    text = f"""
### Flux.1 dev
The advanced search node takes the place of **SamplerCustomAdvanced**. Flux has its guidance distilled in: *Basic Guider*
needs no negative prompt and makes one model call per step.

Budget 16 takes about as long as 16 pictures. Copy *The winner's recipe* into the workflow *reuse_a_winner* (with these
loaders and this guider) to render it again.

**Change:** prompt · size · guidance, 2.5 to 4 · budget · any LoRA after the model loader.
{NEEDS_CLIP}
"""
    return Graph("flux_search", (
        (Group("1 · Flux.1 dev", MODEL, ((unet(files.FLUX), clip, vae(files.FLUX_VAE)),)),
         Group("2 · Prompt and size", MODEL, ((*prompt_and_positive(CLIP), latent(side=1024, type="EmptySD3LatentImage")),))),
        (Group("3 · How an image is made", PROMPTS, ((guidance, guider, noise, sampler, sigmas),)),),
        (Group("4 · Verifier: what is good", JUDGE, ((clip_score(),),)), note(text, (362, 300))),
        (Group("5 · Search", SEARCH, ((advanced_search(VAE), recipe()),)),),
        (Group("6 · Result", RESULT, ((save(), plot()),)),),
    ))  # fmt: skip


def z_image() -> Graph:
    jitter = Node("jitter", "NSConditioningJitterProposal", {"cosine": 0.9, "same_noise": False}, size=(330, 0))
    method = Node("method", "NSRandomSearch", {"draft_steps": 0}, {"proposal": ("jitter", 0)}, (330, 0))
    sampler = search(("shift", 0), VAE, keep=4, links={"method": ("method", 0)}, steps=8, cfg=1.0,
                     sampler_name="res_multistep", scheduler="simple")  # fmt: skip
    text = f"""
### Z-Image Turbo: search a model that ignores the seed
A distilled model of few steps gives nearly the same picture for every seed, so that new noise alone finds nothing better.
**Conditioning Jitter** also turns the prompt's embedding a little for each candidate: layouts differ again.

**Random Search**, because 8 steps leave no room for drafts or looks half-way.

**Change:** prompt · *cosine*: nearer to 1 if pictures leave the prompt, lower if they are all alike · budget.

**Reuse:** a recipe with jitter needs *Jitter Conditioning* before the guider.
{NEEDS_CLIP}
"""
    return Graph("z_image_search", (
        (Group("1 · Z-Image Turbo", MODEL, (
            (unet(files.Z_IMAGE), shift(3.0), text_encoder(files.Z_IMAGE_TEXT, "lumina2"), vae(files.Z_IMAGE_VAE)),)),
         note(text, (342, 340))),
        (Group("2 · Prompt and size", MODEL, (
            (*prompt_and_positive(CLIP), zeroed_negative(), latent(side=1024, type="EmptySD3LatentImage")),)),),
        (Group("3 · Verifier: what is good", JUDGE, ((clip_score(),),)),
         Group("4 · Vary the text too", PROMPTS, ((jitter, method),))),
        (Group("5 · Search", SEARCH, ((sampler,),)),),
        (Group("6 · Result", RESULT, ((save(title="Save Image: the best, best first"), plot()),)),),
    ))  # fmt: skip


def qwen_image() -> Graph:
    lora = Node("lora", "LoraLoaderModelOnly", {"lora_name": files.QWEN_LIGHTNING["name"], "strength_model": 1.0},
                {"model": UNET}, (310, 0), models=(files.QWEN_LIGHTNING,))  # fmt: skip
    jitter = Node("jitter", "NSConditioningJitterProposal", {"cosine": 0.95, "same_noise": False}, size=(330, 0))
    method = Node("method", "NSRandomSearch", {"draft_steps": 0}, {"proposal": ("jitter", 0)}, (330, 0))
    sampler = search(("shift", 0), VAE, links={"method": ("method", 0)}, steps=8, cfg=1.0, sampler_name="euler",
                     scheduler="simple")  # fmt: skip
    text = f"""
### Qwen-Image with the 8-step Lightning LoRA
A model of few steps hardly reacts to the seed. **Conditioning Jitter** also turns the prompt's embedding a little for each
candidate, **Random Search** keeps the best: 16 candidates are 128 model calls, as many as 6 pictures of 20 steps.

**Change:** prompt · *cosine*: nearer to 1 if pictures leave the prompt, lower if they are all alike · budget · without the
LoRA: 20 steps, cfg 4, and no method.

**Reuse:** a recipe with jitter needs *Jitter Conditioning* before the guider.
{NEEDS_CLIP}
"""
    return Graph("qwen_image_search", (
        (Group("1 · Qwen-Image", MODEL, (
            (unet(files.QWEN), lora, shift(3.1, ("lora", 0)), text_encoder(files.QWEN_TEXT, "qwen_image"),
             vae(files.QWEN_VAE)),)),),
        (Group("2 · Prompt and size", MODEL, (
            (*prompts(CLIP, SIGN_PROMPT, ""), latent(side=1328, type="EmptySD3LatentImage")),)),
         note(text, (342, 300))),
        (Group("3 · Verifier: what is good", JUDGE, ((clip_score(),),)),
         Group("4 · Vary the text too", PROMPTS, ((jitter, method),))),
        (Group("5 · Search", SEARCH, ((sampler,),)),),
        (Group("6 · Result", RESULT, ((save(), plot()),)),),
    ))  # fmt: skip


def wan_video() -> Graph:
    frames = Node("latent", "EmptyHunyuanLatentVideo", {"width": 832, "height": 480, "length": 33, "batch_size": 1},
                  size=(310, 0))  # fmt: skip
    method = Node("method", "NSDraftSearch", {"draft_steps": 10, "finals": 1}, size=(330, 0))
    limits = Node("limits", "NSBudget", {"max_seconds": 3600.0}, size=(330, 0))
    sampler = search(("shift", 0), VAE, budget=8, steps=30, cfg=6.0, sampler_name="uni_pc", scheduler="simple",
                     links={"method": ("method", 0), "limits": ("limits", 0)})  # fmt: skip
    video = Node("video", "CreateVideo", {"fps": 16.0}, {"images": ("search", 0)}, (400, 0))
    saved = Node("save", "SaveVideo", {"filename_prefix": "video/noise-search", "format": "auto", "codec": "auto"},
                 {"video": ("video", 0)}, (400, 400))  # fmt: skip
    text = f"""
### Wan 2.1 text to video
A candidate is a whole video. **CLIP Score** judges every frame, and the mean counts: a video that loses its subject half-way
ranks low.

**Draft Search** tries many noises with 10 steps each and renders your own seed and the best one in full (30 steps).
**Search Limits** ends it after an hour, whatever the budget says.

**Change:** prompt · *length*: 33 frames are 2 seconds; 4 n + 1 · *budget* in whole videos.
{NEEDS_CLIP}
"""
    return Graph("wan_video_search", (
        (Group("1 · Wan 2.1", MODEL, (
            (unet(files.WAN), shift(8.0, type="ModelSamplingSD3"), text_encoder(files.WAN_TEXT, "wan"), vae(files.WAN_VAE)),)),
         note(text, (342, 300))),
        (Group("2 · Prompt, size, length", MODEL, ((*prompts(CLIP, VIDEO_PROMPT, "blurry, static, text, watermark"), frames),)),),
        (Group("3 · Verifier: every frame", JUDGE, ((clip_score(),),)),
         Group("4 · Drafts, and a time limit", PROMPTS, ((method, limits),))),
        (Group("5 · Search", SEARCH, ((sampler,),)),),
        (Group("6 · Result", RESULT, ((video, saved, plot()),)),),
    ))  # fmt: skip


MODELS = [sdxl(), flux(), z_image(), qwen_image(), wan_video()]
