"""Features of pictures for FID and IS, and both from torch-fidelity (pip install torch-fidelity).

    inception   torch-fidelity's InceptionV3, equal to the original one of FID; its weights are a file of the user's
    tiny        a small network of fixed random weights: for trying things out; its numbers mean nothing elsewhere

Statistics that other tools wrote fit if they are of this network: those of the ADM evaluations are. pytorch-fid uses the
same weights but resizes otherwise, which moves FID slightly.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

try:
    import torch_fidelity  # noqa: F401
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
except ImportError as error:
    raise ImportError("FID and IS need torch-fidelity: pip install 'torch-fidelity>=0.4'") from error

from .class_statistics import Gaussian, gaussian_of

INCEPTION, TINY = "inception", "tiny"
BATCH = 32
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


class TinyFeatures(FeatureExtractorBase):
    """Three convolutions of random weights that are the same everywhere: 16 features and 10 logits."""

    def __init__(self, name: str, features_list: Sequence[str], **options: object) -> None:
        """Build it.

        Args:
            name: torch-fidelity's.
            features_list: Of "features" (16) and "logits" (10).
            **options: torch-fidelity's, for other networks; not used.
        """
        super().__init__(name, features_list)
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()
        )
        self.head = nn.Linear(16, 10)
        for parameter in self.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            scale = (2 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        self.requires_grad_(False).eval()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Return the names of what it gives."""
        return "features", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Return what a metric of torch-fidelity ("fid", "isc") uses."""
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled() -> bool:
        """Not worth it."""
        return False

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return what was asked for, (B, 16) and (B, 10), of pictures (B, 3, H, W), uint8."""
        features = self.body(images.float() / 127.5 - 1).mean((2, 3))
        found = {"features": features, "logits": self.head(features)}
        return tuple(found[name] for name in self.features_list)


class Extractor:
    """A network for FID and IS: features and class logits of pictures.

    Attributes:
        name: "inception" or "tiny".
    """

    def __init__(self, name: str, weights: Path | None = None, device: str = "cpu") -> None:
        """Load it.

        Args:
            name: "inception" or "tiny".
            weights: The file that torch-fidelity publishes (weights-inception-2015-12-05-6726825d.pth); for inception.
            device: Where it runs.

        Raises:
            ValueError: For another name, and if inception has no weights or tiny has some.
        """
        if name not in (INCEPTION, TINY) or (weights is None) != (name == TINY):
            raise ValueError(f"--features {name} with --weights {weights}: expected inception with a file, or tiny without")
        self.name, self._device = name, device
        if name == TINY:
            self._network: nn.Module = TinyFeatures(TINY, ["features", "logits"])
        else:
            self._network = FeatureExtractorInceptionV3(
                INCEPTION, ["2048", "logits_unbiased"], feature_extractor_weights_path=_safe_copy(weights)
            )
        self._network.to(device)

    def both(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, D) and logits (B, C), float32 on the CPU, of pictures (B, 3, H, W), uint8."""
        with torch.inference_mode():
            features, logits = self._network(pictures.to(self._device))
        return features.float().cpu(), logits.float().cpu()

    def features(self, pictures: Tensor) -> Tensor:
        """Return features (B, D), float32 on the CPU, of pictures (B, 3, H, W), uint8."""
        return self.both(pictures)[0]

    def of_folder(self, folder: Path) -> tuple[Tensor, Tensor]:
        """Return features (N, D) and logits (N, C) of the pictures of a folder, in the order of their names."""
        parts = [self.both(batch) for batch in read_batches(picture_files(folder))]
        return torch.cat([features for features, _ in parts]), torch.cat([logits for _, logits in parts])


def _safe_copy(weights: Path) -> io.BytesIO:
    """Return weights as a file that the library may unpickle: it does so without `weights_only`."""
    state = torch.load(weights, map_location="cpu", weights_only=True)
    copy = io.BytesIO()
    torch.save({name: value for name, value in state.items() if isinstance(value, Tensor)}, copy)
    copy.seek(0)
    return copy


def picture_files(folder: Path) -> list[Path]:
    """Return the picture files of a folder, sorted by name.

    Raises:
        ValueError: If there is none.
    """
    found = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise ValueError(f"{folder}: no picture ({', '.join(ENDINGS)}) in it")
    return found


def read_picture(path: Path) -> Tensor:
    """Return a picture's file as (1, 3, H, W), uint8."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None].contiguous()


def read_batches(files: Sequence[Path]) -> Iterator[Tensor]:
    """Yield pictures (B, 3, H, W), uint8, in order; those of one batch have one size."""
    batch: list[Tensor] = []
    for path in files:
        picture = read_picture(path)
        if batch and (len(batch) == BATCH or picture.shape != batch[0].shape):
            yield torch.cat(batch)
            batch = []
        batch.append(picture)
    yield torch.cat(batch)


def fid(features: Tensor, statistics: Gaussian) -> float:
    """Return the FID of features (N, D) to given statistics, by torch-fidelity."""
    own = gaussian_of(features)
    one, other = ({"mu": g.mu.numpy(), "sigma": g.sigma.numpy()} for g in (own, statistics))
    return fid_statistics_to_metric(one, other, verbose=False)[KEY_METRIC_FID]


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """Return mean and standard deviation of the Inception Score over splits, of logits (N, C), by torch-fidelity.

    Raises:
        ValueError: If there are fewer pictures than splits.
    """
    if not 1 <= splits <= len(logits):
        raise ValueError(f"--splits {splits}: expected 1 to {len(logits)}, the number of pictures")
    found = isc_features_to_metric(logits, splits=splits)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD]
