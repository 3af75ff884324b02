"""Write fixtures/hps_v3.json: what HPSv3's own code says of a tiny model with random weights.

Needs the source of hpsv3 1.0.0 (`pip download --no-deps hpsv3==1.0.0`, unpacked), transformers 4.45.2, torch and
torchvision. The packages that it imports for training only are replaced by stand-ins.

    python tests/verifiers/make_hps_v3_fixtures.py FOLDER_WITH_HPSV3
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tiny_vlm import picture, random_weights, save_config, save_processor  # noqa: E402

CASES = [
    {"prompt": "a red fox in {deep} snow, at dawn", "height": 90, "width": 140, "phase": 0},
    {"prompt": "a red fox in {deep} snow, at dawn", "height": 90, "width": 140, "phase": 1},
    {"prompt": "Two people\nand a kite.", "height": 700, "width": 500, "phase": 2},
]


class Base:
    """Stands for a class to inherit from."""


def main(source: str) -> None:
    sys.path.insert(0, source)
    absent = ("trl", "peft", "datasets", "pandas", "matplotlib", "matplotlib.pyplot", "matplotlib.patches", "fire",
              "tensorboard", "torch.utils.tensorboard", "hpsv3.utils.training_utils", "hpsv3.utils.parser")  # fmt: skip
    import torch._dynamo  # before the stand-ins: torch looks for some of the packages
    from transformers import AutoConfig, AutoProcessor, Qwen2VLForConditionalGeneration, trainer  # noqa: F401

    sys.modules.update({name: MagicMock() for name in absent})
    sys.modules["trl"].RewardTrainer = Base
    from hpsv3.dataset import data_collator_qwen as collator
    from hpsv3.inference import HPSv3RewardInferencer
    from hpsv3.model.qwen2vl_trainer import Qwen2VLRewardModelBT

    for name in absent:
        del sys.modules[name]
    folder = Path(tempfile.mkdtemp())
    save_processor(folder, "qwen2_vl")
    save_config(folder, "qwen2_vl")
    processor = AutoProcessor.from_pretrained(folder, padding_side="right")
    processor.tokenizer.add_special_tokens({"additional_special_tokens": ["<|Reward|>"]})
    ids = processor.tokenizer.convert_tokens_to_ids(["<|Reward|>"])
    model = Qwen2VLRewardModelBT(
        AutoConfig.from_pretrained(folder), output_dim=2, reward_token="special", special_token_ids=ids, rm_head_type="ranknet"
    )
    model.resize_token_embeddings(len(processor.tokenizer))
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    model.float().load_state_dict(random_weights(shapes), strict=True)
    judge = HPSv3RewardInferencer.__new__(HPSv3RewardInferencer)
    judge.device, judge.use_special_tokens, judge.model, judge.processor = "cpu", True, model.eval(), processor

    def ask(case: dict) -> list[float]:
        pixels = picture(case["height"], case["width"], case["phase"])
        image = Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())
        with torch.no_grad():
            return judge.reward([image], [case["prompt"]])[0].tolist()

    rewards = [ask(case) for case in CASES]
    instruction = collator.INSTRUCTION + collator.prompt_with_special_token
    found = {
        "shapes": shapes,
        "cases": CASES,
        "rewards": rewards,
        "instruction_sha256": hashlib.sha256(instruction.encode()).hexdigest(),
    }
    (HERE / "fixtures").mkdir(exist_ok=True)
    (HERE / "fixtures" / "hps_v3.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
