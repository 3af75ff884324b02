"""The API judge as a node: the user's settings, a whole search against a server, and no key anywhere."""

from __future__ import annotations

import json
import logging
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm
import folder_paths
import torch
from chatserver import ChatServer, Clock, brightness, echoes_key, says
from comfy_execution.utils import CurrentNodeContext
from searching import Found, decoded, parts, search_with, stock_with

from noise_search.nodes.definitions.scoring import NSScoreImages
from noise_search.nodes.definitions.search import SKIP
from noise_search.nodes.definitions.verifiers.api import SETTINGS, NSAPIJudge
from noise_search.search.methods.random_search import RandomSearch
from noise_search.search.scoring.scorer import VerifierError
from noise_search.verifiers.api.judge import CHECK_LIST, COMPARE, FIVE_ASPECTS

KEY = "sk-proj-0123456789abcdefSECRET"


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """ComfyUI's user folder, with `write` for the settings of the judge."""
    before = folder_paths.get_user_directory()
    folder_paths.set_user_directory(str(tmp_path))

    def write(**section: Any) -> None:
        (tmp_path / SETTINGS).write_text(json.dumps({"api_judge": section}), encoding="utf-8")

    yield SimpleNamespace(folder=tmp_path, write=write)
    folder_paths.set_user_directory(before)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


def node_inputs(server: ChatServer | str, **more: Any) -> dict[str, Any]:
    """Every input at its default, but for the address and the prompt."""
    defaults = {item.id: item.default for item in NSAPIJudge.define_schema().inputs}
    url = server if isinstance(server, str) else server.url
    return {**defaults, "base_url": url, "prompt": "a bright picture", **more}


def verifier_of(server: ChatServer | str, **more: Any) -> Any:
    (verifier,) = run_node(NSAPIJudge, **node_inputs(server, **more))
    verifier.client.clock = clock = Clock()
    verifier.client.sleep = clock.sleep
    return verifier


def found_by(server: ChatServer, budget: int = 4, *, options: dict | None = None, **inputs: Any) -> Found:
    verifier = verifier_of(server, **inputs)
    return search_with(parts("eps"), 3, verifier=verifier, budget=budget, method=RandomSearch(), **(options or {}))


def test_schema() -> None:
    schema = NSAPIJudge.define_schema()
    assert schema.category == "noise search/verifiers" and schema.display_name.endswith(" (verifier)")
    assert not {item.id for item in schema.inputs} & {"key", "api_key", "token", "password", "headers"}
    defaults = {item.id: item.default for item in schema.inputs}
    assert (defaults["base_url"], defaults["max_requests"]) == ("http://127.0.0.1:11434/v1", 200)


def test_inputs_reach_the_verifier(user: Any) -> None:
    verifier = verifier_of(
        "http://[::1]:9/x", model="m", prompt="p", ask=CHECK_LIST, max_pixels=2048, timeout=7.0, max_requests=9, max_tokens=50
    )
    assert (verifier.model, verifier.prompt, verifier.ask, verifier.max_pixels, verifier.max_tokens) == (
        "m",
        "p",
        CHECK_LIST,
        2048,
        50,
    )
    assert (verifier.client.timeout, verifier.client.max_requests) == (7.0, 9)
    assert verifier.client.endpoint.address == "[::1]:9"


def test_other_hosts_are_refused_before_anything_is_sent(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []
    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, lambda *a, _n=name, **k: tried.append((_n, a)))
    monkeypatch.setattr(socket.socket, "connect", lambda *a, **k: tried.append(a))
    user.write(allowed_hosts=["api.openai.com"], keys={"api.openai.com": KEY})
    for url in ("https://evil.example/v1", "https://api.openai.com.evil.example/v1", "http://api.openai.com/v1"):
        with pytest.raises(ValueError, match="API judge: input 'base_url'") as error:
            run_node(NSAPIJudge, **node_inputs(url))
        assert KEY not in str(error.value)
    run_node(NSAPIJudge, **node_inputs("https://api.openai.com/v1"))  # allowed: made without a request
    assert tried == []


def test_a_variable_that_is_not_set_is_told_before_the_search(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    user.write(keys={"127.0.0.1:9": "ENV:NO_SUCH_KEY"})
    with pytest.raises(ValueError, match="variable NO_SUCH_KEY, which is not set"):
        run_node(NSAPIJudge, **node_inputs("http://127.0.0.1:9/v1"))


def test_malformed_settings_are_told_before_the_search(user: Any) -> None:
    (user.folder / SETTINGS).write_text(f'{{"api_judge": {KEY}', encoding="utf-8")
    with pytest.raises(ValueError, match=f"settings file {user.folder / SETTINGS} is not JSON") as error:
        run_node(NSAPIJudge, **node_inputs("http://127.0.0.1:9/v1"))
    assert KEY not in str(error.value)


def test_a_search_is_won_by_what_the_server_likes(user: Any, server: ChatServer) -> None:
    graph = parts("eps")
    found = found_by(server, 5)
    pictures = {c["index"]: brightness(seen.images[0]) for c, seen in zip(found.report["candidates"], server.seen, strict=True)}
    assert found.report["best"]["index"] == max(pictures, key=pictures.get)
    assert found.score == pytest.approx(10 * max(pictures.values()), abs=1e-5)
    assert found.report["finals"] is None
    first = (decoded(graph, stock_with(graph, 3))[0] * 255).round().to(torch.uint8)
    assert torch.equal(server.seen[0].images[0], first)


def test_finalists_are_compared_at_the_end(user: Any, server: ChatServer) -> None:
    def judge(seen: Any) -> Any:
        names = seen.body["response_format"]["json_schema"]["schema"]["required"]
        if "better" in names:
            light = [brightness(image) for image in seen.images]
            return {"better": "first" if light[0] > light[1] else "second"}
        return dict.fromkeys(names, 8)

    server.answer = judge
    found = found_by(server, 4, ask=COMPARE)
    pictures = [brightness(seen.images[0]) for seen in server.seen[:4]]
    order = sorted(range(4), key=lambda i: -pictures[i])
    assert found.report["order"] == order
    assert found.report["best"]["index"] == order[0] and found.score == pytest.approx(8.5)
    finals = found.report["finals"]
    assert finals["comparisons"] == 12 and finals["verifier"] == "API judge"
    assert {f["index"]: f["wins"] for f in finals["finalists"]} == pytest.approx({i: 1 - k / 3 for k, i in enumerate(order)})
    assert len(server.seen) == 4 + 12
    assert brightness((found.images[0] * 255).round().to(torch.uint8)) == pytest.approx(max(pictures), abs=1e-3)


def test_finals_that_fail_cost_nothing(user: Any, server: ChatServer) -> None:
    server.answer = lambda seen: dict.fromkeys(seen.body["response_format"]["json_schema"]["schema"]["required"], 8)
    found = found_by(server, 3, ask=COMPARE, max_requests=5)
    assert found.report["finals"] is None and found.report["order"] == [0, 1, 2]
    (problem,) = found.report["problems"]
    assert problem.startswith("verifier 'API judge' could not compare the finalists: API judge: input 'max_requests' is 5")
    assert len(server.seen) == 5


def test_score_images_compares_too(user: Any, server: ChatServer) -> None:
    images = torch.tensor([0.30, 0.31, 0.05, 0.32]).view(4, 1, 1, 1).expand(4, 4, 4, 3)
    verifier = verifier_of(server, ask=COMPARE)
    *_, scores, order = run_node(NSScoreImages, images=images, verifier=verifier)
    assert order == "3,1,0,2"
    best = 10 * round(0.32 * 255) / 255
    assert scores == pytest.approx([best + 0.5, best + 0.25, best, 10 * round(0.05 * 255) / 255], abs=1e-4)
    assert len(server.seen) == 4 + 6


def test_max_requests_is_for_each_execution(user: Any, server: ChatServer) -> None:
    verifier = verifier_of(server, max_requests=3)
    images = torch.rand(3, 4, 4, 3)
    for prompt_id, node_id in (("a", "1"), ("a", "2"), ("b", "2")):
        with CurrentNodeContext(prompt_id, node_id):
            run_node(NSScoreImages, images=images, verifier=verifier)
            with pytest.raises(ValueError, match="input 'max_requests' is 3"):
                run_node(NSScoreImages, images=torch.rand(1, 4, 4, 3), verifier=verifier)
    assert len(server.seen) == 9


def test_the_cap_ends_a_search_or_its_scores(user: Any, server: ChatServer) -> None:
    with pytest.raises(VerifierError, match="input 'max_requests' is 3"):
        found_by(server, 6, max_requests=3)
    assert len(server.seen) == 3
    found = found_by(server, 6, max_requests=3, options={"on_verifier_error": SKIP})
    assert [c["score"] is not None for c in found.report["candidates"]] == [True] * 3 + [False] * 3
    assert len(server.seen) == 6


def test_cancel_is_noticed_during_a_request(user: Any, server: ChatServer) -> None:
    def press_cancel(handler: Any, seen: Any) -> None:
        mm.interrupt_current_processing(True)
        server.ended.wait(20)

    server.script = [press_cancel]
    try:
        with pytest.raises(mm.InterruptProcessingException):
            found_by(server)
    finally:
        mm.interrupt_current_processing(False)
    assert len(server.seen) == 1


def test_cancel_during_the_finals_keeps_the_best(user: Any, server: ChatServer) -> None:
    server.answer = lambda seen: dict.fromkeys(seen.body["response_format"]["json_schema"]["schema"]["required"], 8)

    def press_cancel(handler: Any, seen: Any) -> None:
        mm.interrupt_current_processing(True)
        server.ended.wait(20)

    def grade(handler: Any, seen: Any) -> None:
        says(server.answer(seen))(handler, seen)

    server.script = [grade, grade, press_cancel]
    try:
        found = found_by(server, 2, ask=COMPARE, options={"on_cancel": "keep best"})
    finally:
        mm.interrupt_current_processing(False)
    assert "cancelled" in found.report["stopped"] and found.report["finals"] is None
    assert found.report["order"] == [0, 1]


# No key, anywhere.


def saved(images: torch.Tensor, prompt: dict[str, Any], folder: Path) -> bytes:
    """Save pictures as SaveImage does, with the workflow, and return the files' bytes."""
    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(folder))
    try:
        run_node("SaveImage", images=images, filename_prefix="x", prompt=prompt, extra_pnginfo={"workflow": prompt})
    finally:
        folder_paths.set_output_directory(before)
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*.png")))


@pytest.mark.parametrize("ask", [FIVE_ASPECTS, CHECK_LIST, COMPARE])
@pytest.mark.parametrize("by", ["file", "environment"])
def test_a_search_leaves_no_key_behind(
    user: Any, server: ChatServer, ask: str, by: str, caplog: Any, capfd: Any, tmp_path_factory: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MY_JUDGE_KEY", KEY)
    user.write(keys={server.address: KEY if by == "file" else "ENV:MY_JUDGE_KEY"})
    caplog.set_level(logging.DEBUG)
    server.script = [echoes_key(500), echoes_key(400), echoes_key(400)] if ask == FIVE_ASPECTS else []
    inputs = node_inputs(server, ask=ask)
    verifier = verifier_of(server, ask=ask)
    options = {"on_verifier_error": SKIP, "budget": 3, "held_out": verifier}
    found = search_with(parts("eps"), 3, verifier=verifier, method=RandomSearch(), **options)
    assert all(seen.headers["Authorization"] == f"Bearer {KEY}" for seen in server.seen)  # it was sent
    files = saved(found.images, {"1": {"class_type": "NSAPIJudge", "inputs": inputs}}, tmp_path_factory.mktemp("out"))
    assert b"NSAPIJudge" in files
    out, err = capfd.readouterr()
    shown = [
        str(found.report),
        found.recipe,
        repr(verifier),
        str(vars(verifier)),
        str(vars(verifier.client)),
        caplog.text,
        out,
        err,
    ]
    for text in (*shown, files.decode("latin-1"), *(json.dumps(seen.body) for seen in server.seen)):
        assert KEY not in text and KEY[:12] not in text
    if ask == FIVE_ASPECTS:
        assert "***" in str(found.report["problems"])  # what came back was quoted, without it


def test_an_error_of_a_search_tells_no_key(user: Any, server: ChatServer, caplog: Any) -> None:
    user.write(keys={server.address: KEY})
    caplog.set_level(logging.DEBUG)
    server.script = [echoes_key(400)] * 9
    with pytest.raises(VerifierError, match=r"status 400: Bearer \*\*\*") as caught:
        found_by(server)
    text = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert KEY not in text and KEY[:12] not in text
