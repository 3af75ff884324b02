"""Measure the demo model through ComfyUI's own loaders and sampler, in process, on the CPU.

python demo/evaluate.py               writes demo/weights/measured.json and demo/output/samples.png
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import time
from pathlib import Path

import torch
from bootstrap import HERE, PACKAGE, load_package, start_comfyui

load_package()


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200, help="one sample each")
    parser.add_argument("--search-prompts", type=int, default=100, help="those with all candidates")
    parser.add_argument("--candidates", type=int, default=16, help="samples of each prompt; best of them is measured too")
    parser.add_argument("--pictures", type=int, default=1000, help="drawn pictures for the CLIP's ranking")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--cfg", type=float, default=3.5)
    parser.add_argument("--sampler", default="euler")
    parser.add_argument("--scheduler", default="simple")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--diffusion-file", default="noise-search-demo-mmdit.safetensors")
    parser.add_argument("--comfyui", help="ComfyUI's folder (default: COMFYUI_PATH, or demo/setup.py's)")
    parser.add_argument("--output", type=Path, default=HERE / "output")
    parser.add_argument("--json", type=Path, default=HERE / "weights" / "measured.json")
    return parser.parse_args()


class Studio:
    """The demo's parts behind stock nodes."""

    def __init__(self, args: argparse.Namespace) -> None:
        import nodes  # ComfyUI's

        loaders = importlib.import_module(f"{PACKAGE}.loaders")
        loaders.register_folders()
        self.args, self.nodes = args, nodes
        (self.model,) = nodes.UNETLoader().load_unet(args.diffusion_file, "default")
        (self.vae,) = nodes.VAELoader().load_vae("noise-search-demo-vae.safetensors")
        self.clip, self.vision = loaders.load_clip(), loaders.load_clip_vision()
        (self.negative,) = nodes.CLIPTextEncode().encode(self.clip, "")

    def sample(self, prompt: str, seed: int, count: int, steps: int | None = None) -> torch.Tensor:
        """Return the latents (N, 16, 8, 8) of a prompt."""
        args = self.args
        (positive,) = self.nodes.CLIPTextEncode().encode(self.clip, prompt)
        latent = {"samples": torch.zeros(count, 16, 8, 8)}
        (out,) = self.nodes.KSampler().sample(
            self.model,
            seed,
            steps or args.steps,
            args.cfg,
            args.sampler,
            args.scheduler,
            positive,
            self.negative,
            latent,
        )
        return out["samples"]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pictures (N, 64, 64, 3) in [0, 1]."""
        return self.nodes.VAEDecode().decode(self.vae, {"samples": latents})[0]

    def clip_scores(self, pictures: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Return the cosines of pictures (N, H, W, 3) and prompts (M), with shape (N, M)."""
        image = self.vision.encode_image(pictures)["image_embeds"].float()
        words = [self.clip.encode_from_tokens(self.clip.tokenize(p), return_pooled=True)[1] for p in prompts]
        return torch.nn.functional.normalize(image, dim=1) @ torch.nn.functional.normalize(torch.cat(words), dim=1).T


def measure_samples(studio: Studio, shapes, oracle) -> tuple[dict, list]:
    """Sample every prompt and judge the samples by the oracle and by the CLIP."""
    args, rows = studio.args, []
    single, share, best, by_clip, agreement = [], [], [], [], []
    for n in range(args.prompts):
        prompt = shapes.random_prompt(100_000 + n)
        searched = n < args.search_prompts
        pictures = studio.decode(studio.sample(prompt, n, args.candidates if searched else 1))
        right, soft = oracle.exact_score(pictures, prompt), oracle.soft_score(pictures, prompt)
        clip = studio.clip_scores(pictures, [prompt])[:, 0]
        single.append(right[0].item())
        if not searched:
            continue
        share.append(right.mean().item())
        best.append(right[soft.argmax()].item())
        by_clip.append(right[clip.argmax()].item())
        if 0 < right.sum() < len(right):
            agreement.append((clip[right > 0][:, None] > clip[right == 0][None]).float().mean().item())
        if n < 10:
            rows.append((prompt, pictures, right))
    mean = lambda values: round(sum(values) / max(len(values), 1), 4)  # noqa: E731
    return {
        "single_sample_accuracy": mean(single),
        "mean_sample_accuracy": mean(share),
        "best_by_oracle_accuracy": mean(best),
        "best_by_clip_accuracy": mean(by_clip),
        "clip_prefers_right_sample": mean(agreement),
    }, rows


def measure_clip(studio: Studio, shapes) -> dict:
    """Ask the CLIP to tell a picture's prompt from one with a single fact changed, on drawn pictures."""
    rng = random.Random(7)
    scenes = [shapes.random_scene(rng) for _ in range(studio.args.pictures)]
    pictures = shapes.draw(scenes, torch.Generator().manual_seed(7))
    wins = 0
    for scene, picture in zip(scenes, pictures, strict=True):
        right, wrong = studio.clip_scores(picture[None], [scene.prompt, shapes.change_one_fact(scene, rng).prompt])[0]
        wins += bool(right > wrong)
    return {"clip_ranking_accuracy": wins / len(scenes)}


def measure_autoencoder(studio: Studio, shapes, oracle, count: int = 500) -> dict:
    """Judge drawn pictures by the oracle after a pass through the autoencoder."""
    rng = random.Random(8)
    scenes = [shapes.random_scene(rng) for _ in range(count)]
    pictures = shapes.draw(scenes, torch.Generator().manual_seed(8))
    latents = torch.cat([studio.vae.encode(part) for part in pictures.split(50)])
    decoded = torch.cat([studio.decode(part) for part in latents.split(50)])
    right = [oracle.exact_score(d[None], s.prompt).item() for s, d in zip(scenes, decoded, strict=True)]
    mse = (decoded - pictures).square().mean().item()
    return {"autoencoder_oracle_accuracy": sum(right) / count, "autoencoder_mse": round(mse, 6)}


def measure_time(studio: Studio, steps: int = 8) -> dict:
    """Time one guided model call, sampler included, by batch size, and one decode."""
    prompt, result = "a red circle left of a blue square", {"threads": torch.get_num_threads()}
    for count in (1, 8, 32):
        seconds = []
        for _ in range(4):  # the fastest: other work on the machine only slows
            began = time.perf_counter()
            latents = studio.sample(prompt, 0, count, steps)
            seconds.append(time.perf_counter() - began)
        result[f"ms_per_call_batch_{count}"] = round(1000 * min(seconds) / steps, 2)
    began = time.perf_counter()
    studio.decode(latents)
    result["ms_per_decode"] = round(1000 * (time.perf_counter() - began) / len(latents), 2)
    return result


def contact_sheet(rows: list, path: Path) -> None:
    """Write samples as one picture; a green frame is right by the oracle, a red one wrong."""
    from PIL import Image, ImageDraw

    scale, frame = 2, 4
    cell, label = 64 * scale + 2 * frame, 18
    columns = len(rows[0][1])
    sheet = Image.new("RGB", (columns * cell, len(rows) * (cell + label)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (prompt, pictures, right) in enumerate(rows):
        top = y * (cell + label)
        pen.text((6, top + 3), f"{prompt}   ({int(right.sum())} of {len(right)} right)", fill="black")
        for x, picture in enumerate(pictures):
            pen.rectangle([x * cell, top + label, (x + 1) * cell - 1, top + label + cell - 1],
                          fill="#2a9d3a" if right[x] else "#d03030")  # fmt: skip
            image = Image.fromarray((picture * 255).round().byte().numpy())
            sheet.paste(image.resize((64 * scale, 64 * scale), Image.NEAREST), (x * cell + frame, top + label + frame))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def main() -> None:
    args = parse_args()
    start_comfyui(args.comfyui, "--cpu")
    shapes, oracle = (importlib.import_module(f"{PACKAGE}.{name}") for name in ("shapes", "oracle"))
    import comfy.utils

    comfy.utils.PROGRESS_BAR_ENABLED = False
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        studio = Studio(args)
        settings = {
            name: getattr(args, name)
            for name in ("prompts", "search_prompts", "candidates", "steps", "cfg", "sampler", "scheduler")
        }
        result = {**settings, **measure_autoencoder(studio, shapes, oracle), **measure_clip(studio, shapes)}
        result |= measure_time(studio)
        samples, rows = measure_samples(studio, shapes, oracle)
    result |= samples
    contact_sheet(rows, args.output / "samples.png")
    args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
