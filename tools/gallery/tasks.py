"""Searches inside larger work: a part of a picture, a larger picture, a person who chooses."""

from __future__ import annotations

from .parts import (
    JUDGE,
    MODEL,
    PROMPTS,
    RESULT,
    SEARCH,
    Graph,
    Group,
    Node,
    checkpoint,
    clip_score,
    latent,
    note,
    plot,
    prompts,
    save,
    search,
)  # fmt: skip

REGION = {"left": 320, "top": 256, "width": 192, "height": 256}
REGION_PROMPT = "an apple tree with red apples on a green meadow"
SIDE = 512


def region() -> tuple[Node, ...]:
    """Return four numbers: pixels of the resized picture."""
    return tuple(
        Node(name, "PrimitiveInt", {"value": value, "control_after_generate": "fixed"}, size=(240, 0), title=f"Region: {name}")
        for name, value in REGION.items()
    )


def box(*names: str) -> dict[str, tuple[str, int]]:
    """Return links to numbers of the region, by input."""
    inputs = {"x": "left", "y": "top", "width": "width", "height": "height"}
    return {name: (inputs[name], 0) for name in names}


def inpaint() -> Graph:
    load = Node("load", "LoadImage", {"image": "example.png"}, size=(310, 380))
    scale = Node("scale", "ImageScale", {"upscale_method": "lanczos", "width": SIDE, "height": SIDE, "crop": "center"},
                 {"image": ("load", 0)}, (310, 0))  # fmt: skip
    nothing = Node("nothing", "SolidMask", {"value": 0.0, "width": SIDE, "height": SIDE}, {}, (260, 0), "Keep everything ...")
    inside = Node("inside", "SolidMask", {"value": 1.0}, box("width", "height"), (260, 0), "... but the region")
    mask = Node("mask", "MaskComposite", {"operation": "add"},
                {"destination": ("nothing", 0), "source": ("inside", 0), **box("x", "y")}, (260, 0))  # fmt: skip
    encode = Node("encode", "VAEEncode", {}, {"pixels": ("scale", 0), "vae": ("ckpt", 2)}, (260, 0))
    masked = Node("masked", "SetLatentNoiseMask", {}, {"samples": ("encode", 0), "mask": ("mask", 0)}, (260, 0))
    image = Node("image", "NSGraphImage", size=(280, 0))
    crop = Node("crop", "ImageCrop", {}, {"image": ("image", 0), **box("x", "y", "width", "height")}, (280, 190),
                "Image Crop: the region")  # fmt: skip
    score = Node("score", "NSScoreImages", {"keep": 0}, {"images": ("crop", 0), "verifier": ("clipscore", 0)}, (280, 0),
                 "Score of the region")  # fmt: skip
    verifier = Node("graph", "NSScoreFromGraph", {}, {"score": ("score", 3)}, (280, 0))
    paste = Node("paste", "ImageCompositeMasked", {"x": 0, "y": 0, "resize_source": False},
                 {"destination": ("scale", 0), "source": ("search", 0), "mask": ("mask", 0)}, (400, 0),
                 "All else untouched")  # fmt: skip
    text = """
### Search for the best inpainting of a region
Only the masked region is drawn anew, and only the region is judged: **Image Crop** cuts it out of each candidate, **CLIP Score**
compares it with the prompt. The prompt says what the region shows, not the whole picture.

**Change:** the picture (*Load Image*) · the four numbers of the region, in pixels of the resized picture, multiples of 8 ·
the prompt · *denoise*: 1 ignores what was there, 0.5 stays close to it.

**A painted mask instead of the box:** right-click *Load Image*, Open in Mask Editor, and connect its MASK to *Set Latent Noise
Mask* and to the node that pastes the result; keep the crop around it.

**Needed in models/clip_vision:** model.safetensors of openai/clip-vit-large-patch14, saved as
*clip-vit-large-patch14.safetensors*.
"""
    sampler = search(verifier="graph", denoise=0.9, links={"latent_image": ("masked", 0)})
    return Graph("inpaint_region_search", (
        (Group("1 · Model and prompt", MODEL, ((checkpoint(), *prompts(text=REGION_PROMPT)),)), note(text, (342, 350))),
        (Group("2 · Picture and region", PROMPTS, ((load, scale), region(), (nothing, inside, mask, encode, masked))),),
        (Group("3 · Judge the region", JUDGE, ((clip_score(), image, crop, score, verifier),)),),
        (Group("4 · Search", SEARCH, ((sampler,),)),),
        (Group("5 · Result", RESULT, ((paste, save(("paste", 0)), plot()),)),),
    ))  # fmt: skip


def hires() -> Graph:
    larger = Node("upscale", "LatentUpscaleBy", {"upscale_method": "nearest-exact", "scale_by": 1.5}, {"samples": ("search", 1)},
                  (340, 0))  # fmt: skip
    first = search(title="First search: the composition")
    second = search(key="second", title="Second search: the details", budget=4, denoise=0.5,
                    links={"latent_image": ("upscale", 0)})  # fmt: skip
    base = Node("base", "PreviewImage", {}, {"images": ("search", 0)}, (400, 400), "The winner at base size")
    text = """
### A larger picture from the winner
The first search finds a good composition at the size that the model knows. Its **latents** output, the winner's latent, is
enlarged, and a second search of 4 images redraws the details at *denoise* 0.5 and keeps the best of them.

Most of the time goes where pictures are cheap: a step at 768 px costs more than twice one at 512.

**Change:** *scale_by*, 1.25 to 2 · *denoise*: 0.3 keeps more, 0.6 adds more · for one try only, a KSampler and a VAE Decode
in the place of the second search.

**Needed in models/clip_vision:** model.safetensors of openai/clip-vit-large-patch14, saved as
*clip-vit-large-patch14.safetensors*.
"""
    return Graph("hires_from_winner", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · Verifier of both", JUDGE, ((clip_score(),),)), note(text, (362, 300))),
        (Group("3 · Search small", SEARCH, ((first,),)),),
        (Group("4 · Enlarge, search again", SEARCH, ((larger, second),)),),
        (Group("5 · Result", RESULT, ((base, save(("second", 0), title="Save Image: the larger one")), (plot(),))),),
    ))  # fmt: skip


def by_hand() -> Graph:
    human = Node("human", "NSHumanVerifier", {"set_size": 4, "timeout": 0.0, "when_absent": "model of your choices"},
                 {"assistant": ("clipscore", 0)}, (330, 0))  # fmt: skip
    method = Node("method", "NSZeroOrderSearch", {"neighbors": 3, "cosine": 0.9, "on_stall": "keep", "draft_steps": 0},
                  size=(330, 0))  # fmt: skip
    sampler = search(verifier="human", links={"method": ("method", 0)})
    text = """
### You are the verifier
The search shows you four pictures and waits: the best so far and three like it. Pick the one you like most, rank them, or say
that all are bad. **Zero-Order Search** goes on from your choice, around its noise, and asks again: five questions for a
budget of 16.

A model of your choices learns along. When you tire, let it **take over**; it also answers when the page is closed. Until it
knows enough, the *assistant*, here **CLIP Score**, does.

**Change:** *cosine*: 0.98 for small steps, 0.8 for large ones · *neighbors* and *set_size*, one more than it · *timeout*:
seconds to answer, 0 waits · unplug the assistant if you want no CLIP.

**Needed in models/clip_vision:** model.safetensors of openai/clip-vit-large-patch14, saved as
*clip-vit-large-patch14.safetensors*.
"""
    return Graph("choose_by_hand", (
        (Group("1 · Model, prompt, size", MODEL, ((checkpoint(), *prompts(), latent()),)),),
        (Group("2 · You choose", JUDGE, ((clip_score(), human),)), note(text, (362, 330))),
        (Group("3 · Steps in noise, then search", SEARCH, ((method, sampler),)),),
        (Group("4 · Result", RESULT, ((save(title="Save Image: your choice"), plot()),)),),
    ))  # fmt: skip


TASKS = [inpaint(), hires(), by_hand()]
