"""FID and IS of folders, against torch-fidelity run as its own users do; weights are read without code."""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image

torch_fidelity = pytest.importorskip("torch_fidelity")

from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from noise_search.bench.class_features import Extractor, TinyFeatures, fid, inception_score, read_batches
from noise_search.bench.class_statistics import gaussian_of


@pytest.fixture
def folders(tmp_path):  # noqa: ANN201
    generator = torch.Generator().manual_seed(0)
    for name, low in (("a", 0), ("b", 60)):
        (tmp_path / name).mkdir()
        for index in range(40):
            pixels = torch.randint(low, 256, (24, 24, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / name / f"{index:03d}.png")
    return tmp_path / "a", tmp_path / "b"


def test_fid_and_is_of_folders_are_the_librarys(folders, monkeypatch):
    monkeypatch.setitem(FEATURE_EXTRACTORS_REGISTRY, "bench-tiny", TinyFeatures)
    theirs = torch_fidelity.calculate_metrics(
        input1=str(folders[0]), input2=str(folders[1]), fid=True, isc=True, isc_splits=4, cuda=False, verbose=False,
        feature_extractor="bench-tiny", cache=False, save_cpu_ram=True,
    )  # fmt: skip
    extractor = Extractor("tiny")
    (found, logits), (others, _) = extractor.of_folder(folders[0]), extractor.of_folder(folders[1])
    assert found.shape == (40, 16) and logits.shape == (40, 10)
    ours = fid(found, gaussian_of(others))
    assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4) and ours > 0.01
    mean, deviation = inception_score(logits, 4)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert deviation == pytest.approx(theirs["inception_score_std"], rel=1e-4)


def test_inception_score_of_known_predictions():
    sure = 1000.0 * torch.eye(5).repeat(4, 1)
    assert inception_score(sure, 1) == (pytest.approx(5.0), 0.0)  # surely 5 classes, all as often
    assert inception_score(torch.zeros(20, 5), 1)[0] == pytest.approx(1.0)  # no idea
    with pytest.raises(ValueError, match="expected 1 to 20"):
        inception_score(sure, 21)


def test_pictures_of_several_sizes_are_read_in_order(tmp_path):
    for index, size in enumerate([4, 4, 6, 4]):
        Image.new("RGB", (size, size), (index, 0, 0)).save(tmp_path / f"{index}.png")
    batches = list(read_batches(sorted(tmp_path.iterdir())))
    assert [tuple(b.shape) for b in batches] == [(2, 3, 4, 4), (1, 3, 6, 6), (1, 3, 4, 4)]
    assert [int(row[0, 0, 0]) for b in batches for row in b] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="no picture"):
        Extractor("tiny").of_folder(tmp_path / "none")


class TestInceptionWeights:
    def test_a_file_of_weights_is_used(self, tmp_path, monkeypatch):
        # The layers' own random start, kept as a file, has to come back; a whole forward pass shows it is used.
        monkeypatch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        state = FeatureExtractorInceptionV3("x", ["2048"], _file({"x": torch.zeros(1)}, tmp_path)).state_dict()
        monkeypatch.undo()
        path = _file(state, tmp_path)
        extractor = Extractor("inception", path)
        picture = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
        found, logits = extractor.both(picture)
        plain = FeatureExtractorInceptionV3("y", ["2048", "logits_unbiased"], str(path))
        expected, expected_logits = plain(picture)
        assert found.shape == (1, 2048) and logits.shape == (1, 1008)
        assert torch.equal(found, expected) and torch.equal(logits, expected_logits)

    def test_code_in_a_file_is_not_run(self, tmp_path):
        class Evil:
            def __reduce__(self) -> tuple:
                return print, ("run",)

        path = tmp_path / "evil.pth"
        torch.save({"fc.weight": Evil()}, path)
        with pytest.raises(pickle.UnpicklingError, match="[Ww]eights"):
            Extractor("inception", path)

    def test_what_is_missing_is_said(self, tmp_path):
        for name, weights in (("inception", None), ("tiny", tmp_path), ("vgg", None)):
            with pytest.raises(ValueError, match="expected inception with a file"):
                Extractor(name, weights)


def _file(state: dict, folder) -> str:  # noqa: ANN001
    path = folder / "weights.pth"
    torch.save(state, path)
    return str(path)
