"""Makes fixtures/hps_v2.json and fixtures/photos.safetensors with the original packages.

Wants, in an environment of its own: hpsv2 1.2.0 (with --no-deps; its model and its preprocessing are the reference),
open_clip_torch 3.3.0 (whose vocabulary hpsv2's wheel lacks), scikit-image 0.26.0 (photographs: NASA's, in the public
domain, and two under CC0), torchvision 0.26.0, transformers 5.23, safetensors, ftfy, regex, clint.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import open_clip
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from drawn import drawn  # noqa: E402
from mixed_pictures import mixed_pictures  # noqa: E402

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
SIZE = 32
SHORT = 80  # pixels of the shorter side of what is kept of a photograph
PROMPTS = [
    "a cup of coffee on a wooden table",
    "an astronaut in front of a flag",
    "A (very:1.4) [fluffy] ginger cat, looking at us & smiling",
    " ".join(f"word{i} with more to say" for i in range(60)),
    'two signs, "OPEN 24h" & "closed": 🎨',
]
# ViT-H-14 in open_clip, but narrow.
VISION = {"image_size": SIZE, "layers": 32, "width": 64, "head_width": 64, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 24}


def model() -> torch.nn.Module:
    """The reference's model with drawn weights, through a checkpoint as the published one is."""
    from hpsv2.src.open_clip.model import CLIP

    clip = CLIP(64, VISION, TEXT, output_dict=True)
    shapes = {name: list(value.shape) for name, value in clip.state_dict().items()}
    clip.load_state_dict(drawn(shapes))
    return clip.eval()


def scores(clip: torch.nn.Module, pixels: torch.Tensor) -> list[list[float]]:
    """The reference's formula, for each prompt and picture (B, 3, 32, 32), normalized."""
    from hpsv2.src.open_clip import get_tokenizer

    rows = []
    with torch.no_grad():
        for prompt in PROMPTS:
            out = clip(pixels, get_tokenizer("ViT-H-14")([prompt]).expand(len(pixels), -1))
            rows.append(torch.diagonal(out["image_features"] @ out["text_features"].T).tolist())
    return rows


def main() -> None:
    package = Path(importlib.util.find_spec("hpsv2").origin).parent / "src" / "open_clip"
    shutil.copy(Path(open_clip.__file__).with_name(VOCABULARY), package)
    from hpsv2.src.open_clip.transform import image_transform

    photos = [Image.fromarray(getattr(skimage.data, name)()) for name in ("astronaut", "coffee", "chelsea")]
    photos = [Resize(SHORT, InterpolationMode.BICUBIC)(photo) for photo in photos]
    plain = Compose([Resize(SIZE, InterpolationMode.BICUBIC), CenterCrop(SIZE)])  # OpenAI's, and its heirs'
    letterbox = image_transform(SIZE, is_train=False, resize_longest_max=True)  # HPSv2's

    def squeezed(resample: int) -> list[np.ndarray]:
        processor = SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE}, resample=resample, do_normalize=False)
        return [np.asarray(processor(photo)["pixel_values"][0]).transpose(1, 2, 0) * 255 for photo in photos]

    kept = {f"photo_{i}": torch.tensor(np.asarray(photo)) for i, photo in enumerate(photos)}
    kept["clip"] = torch.stack([torch.tensor(np.asarray(plain(photo))) for photo in photos])
    boxed = torch.stack([letterbox(photo) for photo in photos])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    kept["hps"] = (boxed * std + mean).movedim(1, -1).half()
    for name, resample in (("siglip_bicubic", 3), ("siglip_bilinear", 2)):
        kept[name] = torch.tensor(np.stack(squeezed(resample)).round()).byte()
    save_file({name: value.contiguous() for name, value in kept.items()}, HERE / "fixtures" / "photos.safetensors")

    clip = model()
    same = ((kept["clip"].movedim(-1, 1) / 255) - mean) / std
    mixed = torch.stack([letterbox(Image.fromarray(picture.numpy())) for picture in mixed_pictures()])
    found = {
        "shapes": {name: list(value.shape) for name, value in clip.state_dict().items()},
        "prompts": PROMPTS,
        "scores of 'clip' pixels": scores(clip, same),
        "scores of photos": scores(clip, boxed),
        "scores of mixed pictures": scores(clip, mixed),
    }
    (HERE / "fixtures" / "hps_v2.json").write_text(json.dumps(found, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
