"""The three trainings of the demo model: what a step sees, what it minimises, and what is kept.

A stage has `model`, `optimizer`, `ema` (averaged weights, or None), `learning_rate(step, steps)`,
`loss(step)` and `export(folder)`. Its randomness at step k comes from the seed and k alone.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from . import models, shapes, text

AUTOENCODER_FILE = "vae/noise-search-demo-vae.safetensors"
DIFFUSION_FILE = "diffusion_models/noise-search-demo-mmdit.safetensors"
CLIP_FOLDER = "noise-search-demo-clip"


def generator_for(seed: int, step: int) -> torch.Generator:
    """Return the source of randomness of one training step."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def draw_batch(count: int, seed: int, step: int) -> tuple[list[shapes.Scene], Tensor]:
    """Draw a step's scenes and their pictures, with shape (B, 3, 64, 64)."""
    rng = random.Random(f"{seed}-{step}")
    scenes = [shapes.random_scene(rng) for _ in range(count)]
    pictures = shapes.draw(scenes, generator_for(seed, step))
    return scenes, pictures.permute(0, 3, 1, 2)  # BHWC -> BCHW


def cosine(step: int, steps: int, peak: float, warmup: int = 100) -> float:
    """Learning rate: a short rise to `peak`, then a half cosine to 2% of it."""
    fall = 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))
    return peak * min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * fall)


def edge_weight(pictures: Tensor) -> Tensor:
    """Weigh the pixels around edges five times the others: pictures (B, 3, H, W) to weights (B, 1, H, W)."""
    spread = functional.max_pool2d(pictures, 3, 1, 1) + functional.max_pool2d(-pictures, 3, 1, 1)
    near = functional.max_pool2d(spread.amax(dim=1, keepdim=True), 3, 1, 1)
    return 1 + 4 * (near > 0.15).float()


class AutoencoderStage:
    """Reconstruction from noised latents whose channels are drawn to mean 0 and deviation 1.

    The first two thirds of the steps train both parts; then the encoder is frozen and the decoder learns
    sharp edges.
    """

    name, ema_decay = "autoencoder", 0.0

    def __init__(self, args: argparse.Namespace) -> None:
        self.model = models.Autoencoder().to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
        self.ema, self.note = None, ""
        self.seed, self.batch = args.seed, args.batch or 32
        self.joint = 2 * args.autoencoder_steps // 3

    def learning_rate(self, step: int, steps: int) -> float:
        done, length = (0, self.joint) if step < self.joint else (self.joint, steps - self.joint)
        return cosine(step - done, length, 1.5e-3)

    def loss(self, step: int) -> Tensor:
        _, pictures = draw_batch(self.batch, self.seed, step)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(step < self.joint):
            z = self.model.encoder(pictures)
        noise = torch.randn(z.shape, generator=generator_for(self.seed + 1, step))
        error = self.model.decoder(z + 0.15 * noise).float() - pictures
        self.note = f"mse {error.detach().square().mean().item():.5f} std {z.detach().float().std().item():.2f}"
        if step >= self.joint:
            return (edge_weight(pictures) * (error.abs() + error.square())).mean()
        z = z.float()
        statistics = z.mean(dim=(0, 2, 3)).square().mean() + (z.std(dim=(0, 2, 3)) - 1).square().mean()
        return error.abs().mean() + error.square().mean() + 0.05 * statistics

    def export(self, folder: Path) -> list[Path]:
        path = folder / AUTOENCODER_FILE
        path.parent.mkdir(exist_ok=True)
        save_file(models.taesd_state_dict(self.model), path)
        return [path]


def normalize_pixels(pictures: Tensor) -> Tensor:
    """Apply CLIP's mean and deviation to pictures (B, 3, H, W) in [0, 1]."""
    mean, std = torch.tensor(text.MEAN), torch.tensor(text.STD)
    return (pictures - mean[:, None, None]) / std[:, None, None]


class ClipStage:
    """Contrastive learning, with one hard negative text (one fact changed) for every picture."""

    name, ema_decay = "clip", 0.0

    def __init__(self, args: argparse.Namespace) -> None:
        self.folder = args.weights / CLIP_FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = text.build_clip(text.save_tokenizer(self.folder))
        self.tokenizer = text.load_tokenizer(self.folder)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.02)
        self.ema, self.note = None, ""
        self.seed, self.batch = args.seed + 10, args.batch or 128

    def learning_rate(self, step: int, steps: int) -> float:
        return cosine(step, steps, 1e-3)

    def loss(self, step: int) -> Tensor:
        scenes, pictures = draw_batch(self.batch, self.seed, step)
        rng = random.Random(f"{self.seed}-{step}-negatives")
        generator = generator_for(self.seed + 1, step)
        wrong = [shapes.change_one_fact(scene, rng) for scene in scenes]
        prompts = [scene.prompt for scene in scenes + wrong]
        tokens = self.tokenizer(prompts, padding="max_length", max_length=text.MAX_TOKENS, return_tensors="pt")
        amount = 0.06 * torch.rand(self.batch, 1, 1, 1, generator=generator)
        pictures = pictures + amount * torch.randn(pictures.shape, generator=generator)
        output = self.model(input_ids=tokens["input_ids"], pixel_values=normalize_pixels(pictures))
        logits = output.logits_per_image.float()
        index = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompts))}
        label = torch.tensor([index[p] for p in prompts])
        own = torch.arange(self.batch)
        same = (label[None, :] == label[: self.batch, None]) & (torch.arange(len(prompts))[None, :] != own[:, None])
        logits = logits.masked_fill(same, float("-inf"))  # another copy of the right prompt is no negative
        right = logits[own, own] > logits[own, own + self.batch]
        self.note = f"right {right.float().mean().item():.2f}"
        by_text = logits[:, : self.batch].T
        return functional.cross_entropy(logits, own) + 0.5 * functional.cross_entropy(by_text, own)

    def export(self, folder: Path) -> list[Path]:
        text.save_clip(self.model, self.folder)
        return [self.folder / "model.safetensors"]


def encode_prompts(folder: Path, prompts: list[str]) -> tuple[Tensor, Tensor]:
    """Encode prompts as ComfyUI does: last hidden states (N, 12, 192), projected pooled vectors (N, 192)."""
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(str(folder), dtype=torch.float32).eval()
    tokens = text.load_tokenizer(folder)(
        prompts, padding="max_length", max_length=text.MAX_TOKENS, truncation=True, return_tensors="pt"
    )["input_ids"]
    with torch.no_grad():
        output = clip.text_model(input_ids=tokens)
        return output.last_hidden_state, clip.text_projection(output.pooler_output)


def encode_pictures(weights: Path, runs: Path, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw and encode the diffusion model's pictures, once: latents (N, 16, 8, 8) as halves, prompts (N,)."""
    state = load_file(weights / AUTOENCODER_FILE)
    encoder = b"".join(state[name].numpy().tobytes() for name in sorted(state) if name.startswith("taesd_encoder"))
    digest = hashlib.sha256(encoder).hexdigest()[:12]
    cache = runs / f"latents-{digest}-{count}-{seed}.safetensors"
    if not cache.exists():
        model = models.Autoencoder()
        model.load_state_dict(models.narrow_state_dict(state))
        model.eval().to(memory_format=torch.channels_last)
        index = {scene: n for n, scene in enumerate(shapes.all_scenes())}
        latents, labels = [], []
        for chunk in range(0, count, 500):
            scenes, pictures = draw_batch(min(500, count - chunk), seed, chunk)
            with torch.no_grad():
                latents.append(model.encoder(pictures.contiguous(memory_format=torch.channels_last)).half().contiguous())
            labels += [index[scene] for scene in scenes]
        save_file({"latents": torch.cat(latents), "labels": torch.tensor(labels)}, cache)
    stored = load_file(cache)
    return stored["latents"], stored["labels"]


def build_mmdit(depth: int, context_width: int, pooled_width: int) -> torch.nn.Module:
    """Make ComfyUI's SD3 transformer, with `depth` heads of 64 and as many blocks, ready to be trained."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper

    linear = {
        "target": "torch.nn.Linear",
        "params": {"in_features": context_width, "out_features": 64 * depth},
    }
    model = OpenAISignatureMMDITWrapper(
        input_size=None, patch_size=2, in_channels=models.LATENT_CHANNELS, depth=depth,
        adm_in_channels=pooled_width, context_embedder_config=linear, qk_norm="rms", dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )  # fmt: skip
    for name, value in model.named_parameters():
        if "ln_q" in name or "ln_k" in name:
            torch.nn.init.ones_(value)
        elif value.dim() < 2 or "adaLN" in name or name == "final_layer.linear.weight":
            torch.nn.init.zeros_(value)
        else:
            torch.nn.init.xavier_uniform_(value.view(value.shape[0], -1))
    return model


class DiffusionStage:
    """Flow matching: the model learns noise - latent at (1 - sigma) latent + sigma noise."""

    name, ema_decay = "diffusion", 0.9985

    def __init__(self, args: argparse.Namespace) -> None:
        scenes = shapes.all_scenes()
        prompts = [scene.prompt for scene in scenes] + [""]
        self.context, self.pooled = encode_prompts(args.weights / CLIP_FOLDER, prompts)
        self.seed, self.batch = args.seed + 20, args.batch or 64
        self.latents, self.labels = encode_pictures(args.weights, args.runs, args.pictures, self.seed)
        self.model = build_mmdit(args.depth, self.context.shape[-1], self.pooled.shape[-1])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), betas=(0.9, 0.98), weight_decay=0.01, fused=True)
        self.ema = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.note = ""

    def learning_rate(self, step: int, steps: int) -> float:
        return 8e-4 * min(1.0, (step + 1) / 200)  # constant, and averaged: training may go on from any step

    def loss(self, step: int) -> Tensor:
        generator = generator_for(self.seed, step)
        rows = torch.randint(len(self.latents), (self.batch,), generator=generator)
        latent, label = self.latents[rows].float(), self.labels[rows]
        dropped = torch.rand(self.batch, generator=generator) < 0.1
        label = torch.where(dropped, len(self.context) - 1, label)  # the empty prompt, for guidance
        noise = torch.randn(latent.shape, generator=generator)
        sigma = torch.sigmoid(torch.randn(self.batch, generator=generator))
        sigma = 2 * sigma / (1 + sigma)  # SD3's shift, milder
        x = torch.lerp(latent, noise, sigma[:, None, None, None])
        velocity = self.model(x, sigma * 1000, context=self.context[label], y=self.pooled[label])
        return functional.mse_loss(velocity.float(), noise - latent)

    def export(self, folder: Path) -> list[Path]:
        path = folder / DIFFUSION_FILE
        path.parent.mkdir(exist_ok=True)
        save_file({name: value.half().contiguous() for name, value in self.ema.items()}, path)
        return [path]


BUILD = {"autoencoder": AutoencoderStage, "clip": ClipStage, "diffusion": DiffusionStage}
