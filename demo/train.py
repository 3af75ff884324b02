"""Train the demo model: autoencoder, then CLIP, then the diffusion model.

    python demo/train.py                  all three stages; killed and started again, it goes on where it was
    python demo/train.py --stage clip     one of them

Checkpoints go to demo/runs/, the finished parts to demo/weights/. The pictures are drawn as training goes;
what step k sees depends on the seed and k alone, so a continued run is the uninterrupted one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

import torch
from bootstrap import HERE, PACKAGE, load_package, start_comfyui
from torch.nn.attention import SDPBackend, sdpa_kernel

load_package()
STAGES = ("autoencoder", "clip", "diffusion")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=("all", *STAGES), default="all")
    parser.add_argument("--autoencoder-steps", type=int, default=3900)
    parser.add_argument("--clip-steps", type=int, default=1600)
    parser.add_argument("--diffusion-steps", type=int, default=5200)
    parser.add_argument("--depth", type=int, default=4, help="of the diffusion model; its width is 64 x depth")
    parser.add_argument("--pictures", type=int, default=60000, help="encoded once for the diffusion model")
    parser.add_argument("--batch", type=int, default=None, help="pictures a step (stages have their own default)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="compute in bfloat16: 2 to 4 times faster where the CPU can")
    parser.add_argument("--save-seconds", type=float, default=60.0, help="time between checkpoints")
    parser.add_argument("--comfyui", help="ComfyUI's folder (default: COMFYUI_PATH, or demo/setup.py's)")
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    parser.add_argument("--weights", type=Path, default=HERE / "weights")
    return parser.parse_args(argv)


def save_checkpoint(stage, step: int, path: Path) -> None:
    """Write a stage's whole state; a crash half-way leaves the previous file."""
    partial = path.with_suffix(".partial")
    ema = stage.ema if stage.ema is not None else {}
    state = {
        "step": step,
        "model": stage.model.state_dict(),
        "optimizer": stage.optimizer.state_dict(),
        "ema": ema,
    }
    torch.save(state, partial)
    partial.replace(path)


def load_checkpoint(stage, path: Path) -> int:
    """Restore a stage's state from its checkpoint, if there is one, and return the step to go on from."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    stage.model.load_state_dict(state["model"])
    stage.optimizer.load_state_dict(state["optimizer"])
    if stage.ema is not None:
        stage.ema = state["ema"]
    return state["step"]


def update_ema(ema: dict[str, torch.Tensor], model: torch.nn.Module, step: int, decay: float) -> None:
    """Move the averaged weights towards the model's, faster in the first steps."""
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        ema[name].lerp_(value.detach(), 1 - decay)


def train(stage, steps: int, path: Path, save_seconds: float, bf16: bool) -> None:
    """Run a stage up to `steps`, from its checkpoint if there is one."""
    step = load_checkpoint(stage, path)
    began = saved = time.monotonic()
    first, running = step, None
    while step < steps:
        for group in stage.optimizer.param_groups:
            group["lr"] = stage.learning_rate(step, steps)
        mixed = torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()
        with (
            mixed,
            sdpa_kernel(SDPBackend.MATH),
        ):  # for sequences this short, the fused kernels are slower on a CPU
            loss = stage.loss(step)
        stage.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(stage.model.parameters(), 1.0)
        stage.optimizer.step()
        step += 1
        if stage.ema is not None:
            update_ema(stage.ema, stage.model, step, stage.ema_decay)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        if step % 100 == 0:
            pace = (time.monotonic() - began) / (step - first)
            print(f"{stage.name} {step}/{steps} loss {running:.4f} {stage.note} {pace:.3f} s/step", flush=True)
        if time.monotonic() - saved > save_seconds or step == steps:
            save_checkpoint(stage, step, path)
            saved = time.monotonic()


def main() -> None:
    args = parse_args()
    start_comfyui(args.comfyui, "--cpu", "--use-pytorch-cross-attention")
    import importlib

    stages = importlib.import_module(f"{PACKAGE}.stages")
    torch.set_num_threads(args.threads)
    args.runs.mkdir(parents=True, exist_ok=True)
    args.weights.mkdir(parents=True, exist_ok=True)
    for name in STAGES if args.stage == "all" else (args.stage,):
        torch.manual_seed(args.seed)
        stage = stages.BUILD[name](args)
        train(stage, getattr(args, f"{name}_steps"), args.runs / f"{name}.pt", args.save_seconds, args.bf16)
        for path in stage.export(args.weights):
            print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MB)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
