"""Text accuracy: edit distances by hand, and real pictures with real readers where one is installed."""

from __future__ import annotations

import builtins
import itertools
import math
import random
import socket
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from noise_search.verifiers.content import ocr
from noise_search.verifiers.content.text_accuracy import Line, TextAccuracy, edit_cost, reading_order

BLANK = torch.zeros(1, 8, 8, 3)


@pytest.mark.parametrize(
    ("wanted", "read", "distance"),
    [
        ("kitten", "sitting", 3),
        ("saturday", "sunday", 3),
        ("abc", "abc", 0),
        ("abc", "", 3),
        ("ab", "ba", 2),
        ("open", "opne", 2),
        ("open", "op en", 1),
        ("intention", "execution", 5),
    ],
)
def test_levenshtein(wanted: str, read: str, distance: int) -> None:
    for a, b in ((wanted, read), (read, wanted)):
        assert edit_cost(a, b, {0, len(b)}, 1) == edit_cost(a, b, range(len(b) + 1), 1) == distance


def recursive(wanted: str, read: str) -> int:
    """The definition, with no table."""
    if not wanted or not read:
        return len(wanted) + len(read)
    if wanted[0] == read[0]:
        return recursive(wanted[1:], read[1:])
    return 1 + min(recursive(wanted[1:], read), recursive(wanted, read[1:]), recursive(wanted[1:], read[1:]))


@pytest.mark.parametrize("outside", [0.0, 0.3, 1.0])
def test_cost_is_the_least_over_all_stretches(outside: float) -> None:
    chance = random.Random(0)
    for _ in range(40):
        wanted = "".join(chance.choices("abc", k=chance.randint(1, 4)))
        read = "".join(chance.choices("abc", k=chance.randint(0, 5)))
        ends = {0, len(read), *chance.sample(range(len(read) + 1), chance.randint(0, len(read)))}
        stretches = itertools.combinations_with_replacement(sorted(ends), 2)
        costs = [recursive(wanted, read[i:j]) + outside * (len(read) - (j - i)) for i, j in stretches]
        assert edit_cost(wanted, read, ends, outside) == pytest.approx(min(costs))
        assert min(costs) <= min(len(wanted) + outside * len(read), max(len(wanted), len(read))) + 1e-9


def scored(read: str, text: str, **options) -> float:
    return TextAccuracy(lambda pixels: [Line(read, (0, 0, 1, 1))], text, **options).score(BLANK).item()


@pytest.mark.parametrize(
    ("read", "other_text", "score"),
    [
        ("open", 0, 1),
        ("now open 24h", 0, 1),
        ("now open 24h", 1, 1 - 6 / 10),
        ("now open 24h", 0.5, 1 - 3 / 9),
        ("now opens 24h", 0, 1 - 1 / 4),  # within a word, letters too many count
        ("op en", 0, 1),
        ("opne", 0, 1 - 2 / 4),
        ("opn", 0, 1 - 1 / 4),
        ("zzzz", 0, 0),
        ("zzzz", 1, 0),
        ("zzzzzzzz", 1, 0),
        ("zzzzzzzz", 0.5, 0),
        ("", 0, 0),
    ],
)
def test_accuracy_by_hand(read: str, other_text: float, score: float) -> None:
    assert scored(read, "open", other_text=other_text) == pytest.approx(score)


def test_rows_are_read_from_top_to_bottom_and_from_left_to_right() -> None:
    lines = [
        Line("right", (60, 8, 90, 32)),
        Line("below", (0, 50, 40, 70)),
        Line("left", (0, 10, 40, 30)),
        Line("middle", (42, 14, 58, 34)),
        Line("above", (50, 0, 90, 6)),
    ]
    for order in itertools.permutations(lines):
        assert [line.text for line in reading_order(order)] == ["above", "left", "middle", "right", "below"]


def test_case_spaces_and_widths() -> None:
    assert scored("Open Now", "OPEN\nNOW") == scored("OPENNOW", "open now") == 1
    assert scored("open", "OPEN", ignore_case=False) == 0
    assert scored("opennow", "open  now", ignore_spaces=False) == pytest.approx(1 - 1 / 8)
    assert scored("open\n now", "open now", ignore_spaces=False) == 1
    assert scored("ＯＰＥＮ！", "open!") == 1  # full-width


def test_pixels_come_as_8_bit_bgr() -> None:
    seen = []
    verifier = TextAccuracy(lambda pixels: seen.append(pixels) or [], "x")
    image = torch.tensor([1.0, 0.5, 0.0]).expand(1, 3, 2, 3)
    assert verifier.score(image).tolist() == [0]
    assert seen[0].shape == (3, 2, 3) and seen[0].dtype == "uint8" and seen[0][0, 0].tolist() == [0, 128, 255]
    assert all(stride > 0 for stride in seen[0].strides)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"text": " \n "}, "input 'text' is ' .n '"),
        ({"text": "x", "other_text": 1.5}, "input 'other_text' is 1.5"),
        ({"text": "x", "other_text": math.nan}, "input 'other_text' is nan"),
    ],
)
def test_bad_inputs_are_refused(inputs: dict, says: str) -> None:
    with pytest.raises(ValueError, match=f"^text accuracy: {says}"):
        TextAccuracy(list, **inputs)


# Readers. Packages are stood in for by modules with the same interface, so that each route is tested without both.


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> dict[str, SimpleNamespace]:
    """Return a dict of the packages that can be imported, at first none: name to RapidOCR class, version and files."""
    there: dict[str, SimpleNamespace] = {}
    real = builtins.__import__

    def imported(name: str, *how: Any) -> Any:
        if not name.startswith(("rapidocr", "onnxruntime")):
            return real(name, *how)
        if name not in there:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return there[name]

    def version(name: str) -> str:
        return imported(name).version

    monkeypatch.setattr(builtins, "__import__", imported)
    monkeypatch.setattr(ocr.importlib.metadata, "version", version)
    monkeypatch.setattr(ocr.importlib.metadata, "files", lambda name: there[name].files)
    ocr.load_reader.cache_clear()
    yield there
    ocr.load_reader.cache_clear()


CORNERS = [[3.0, 5.0], [9.0, 4.0], [9.0, 8.0], [3.0, 9.0]]
EXPECTED = [Line("OPEN", (3.0, 4.0, 9.0, 9.0))]


class NewReader:
    def __init__(self, params: dict[str, str]) -> None:
        self.params = params

    def __call__(self, pixels):
        found = pixels.any()
        return SimpleNamespace(txts=("OPEN",) if found else None, boxes=torch.tensor([CORNERS]).numpy() if found else None)


class OldReader:
    def __call__(self, pixels):
        return ([[CORNERS, "OPEN", 0.98]], [0.1]) if pixels.any() else (None, None)


PARTS = ("det", "cls", "rec")


def new_package(folder: Path, version: str = "3.10.0", parts: tuple[str, ...] = PARTS) -> SimpleNamespace:
    """Make a rapidocr whose wheel brought all models, and whose folder has those of `parts`."""
    for part in parts:
        (folder / f"x_{part}_small.onnx").touch()
    files = [SimpleNamespace(name=f"x_{part}_small.onnx", suffix=".onnx") for part in PARTS]
    for file in files:
        file.locate = lambda name=file.name: folder / name
    return SimpleNamespace(RapidOCR=NewReader, version=version, files=files)


def test_both_packages_give_lines(packages: dict, tmp_path: Path) -> None:
    white, black = torch.ones(4, 4, 3).numpy(), torch.zeros(4, 4, 3).numpy()
    packages["rapidocr_onnxruntime"] = SimpleNamespace(RapidOCR=OldReader)
    old = ocr.load_reader()
    ocr.load_reader.cache_clear()
    packages |= {"rapidocr": new_package(tmp_path), "onnxruntime": SimpleNamespace()}
    new = ocr.load_reader()
    assert old.__qualname__ != new.__qualname__
    for read in (old, new):
        assert read(white) == EXPECTED and read(black) == []


def test_models_are_those_of_the_wheel(packages: dict, tmp_path: Path) -> None:
    packages["rapidocr"] = new_package(tmp_path)
    assert ocr._models_of("rapidocr") == {
        "Det.model_path": f"{tmp_path}/x_det_small.onnx",
        "Cls.model_path": f"{tmp_path}/x_cls_small.onnx",
        "Rec.model_path": f"{tmp_path}/x_rec_small.onnx",
    }


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ([], "rapidocr: No module named 'rapidocr'; rapidocr-onnxruntime: No module"),
        (["rapidocr"], "rapidocr: No module named 'onnxruntime'"),
        (["old", "onnxruntime"], "rapidocr: version 3.4.0 is too old"),
        (["damaged", "onnxruntime"], "rapidocr: this version of rapidocr lacks its model for Rec"),
    ],
)
def test_without_a_package_the_pip_command_is_named(packages: dict, tmp_path: Path, there: list[str], says: str) -> None:
    made = {
        "rapidocr": lambda: new_package(tmp_path),
        "old": lambda: new_package(tmp_path, "3.4.0"),
        "damaged": lambda: new_package(tmp_path, parts=("det", "cls")),
        "onnxruntime": SimpleNamespace,
    }
    for name in there:
        packages["onnxruntime" if name == "onnxruntime" else "rapidocr"] = made[name]()
    with pytest.raises(ValueError, match=f'^text accuracy: .*`pip install "rapidocr>=3.5" onnxruntime`.*{says}'):
        ocr.load_reader()


# The real package; it is among the tools of `make setup`.

TEXTS = {"OPEN 24h": ("OPNE 24h", "Closed"), "Happy Birthday": ("Hapy Brithday", "Merry Xmas")}
FONTS = {"DejaVuSans.ttf": 36, "DejaVuSerif-Bold.ttf": 24, "STIXGeneralItalic.ttf": 44}


def drawn(text: str, font: str, size: int) -> torch.Tensor:
    """Draw a text on a plain ground, (1, 256, 336, 3)."""
    import matplotlib
    import numpy
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (336, 256), (235, 230, 220))
    face = ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{font}", size)
    ImageDraw.Draw(picture).text((20, 90), text, fill=(20, 30, 90), font=face)
    return torch.from_numpy(numpy.asarray(picture).copy())[None] / 255


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args, **kwargs):
        raise AssertionError("the reader asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.comfy
@pytest.mark.parametrize("text", TEXTS)
def test_the_picture_whose_text_is_right_is_chosen(offline: None, text: str) -> None:
    if not (find_spec("rapidocr") or find_spec("rapidocr_onnxruntime")):
        pytest.skip("the optional package rapidocr is not installed; `make setup` installs it")
    from inprocess import run_node
    from noise_search.nodes.definitions.scoring import NSScoreImages
    from noise_search.nodes.definitions.verifiers.checks import NSTextAccuracy

    (verifier,) = run_node(NSTextAccuracy, text=text, other_text=0.0, ignore_case=True, ignore_spaces=True)
    for font, size in FONTS.items():
        images = torch.cat([drawn(shown, font, size) for shown in (*TEXTS[text], text)])
        *_, scores, order = run_node(NSScoreImages, images=images, verifier=verifier)
        assert order == "2,0,1", (font, scores)
        assert scores[0] > 0.9 and scores[0] > scores[1] + 0.03, (font, scores)


@pytest.mark.comfy
def test_cancel_is_noticed_between_two_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    from inprocess import boot, run_node

    boot()
    import comfy.model_management as mm

    from noise_search.nodes.definitions.verifiers import checks

    seen = []

    def read(pixels):
        seen.append(pixels)
        mm.interrupt_current_processing()
        return EXPECTED

    monkeypatch.setattr(checks, "load_reader", lambda: read)
    settings = {"other_text": 0.0, "ignore_case": True, "ignore_spaces": True}
    (verifier,) = run_node(checks.NSTextAccuracy, text="open", **settings)
    with pytest.raises(mm.InterruptProcessingException):
        verifier.score(torch.zeros(3, 8, 8, 3))
    assert len(seen) == 1
