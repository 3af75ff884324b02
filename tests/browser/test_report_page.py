"""The page that Save Search writes, in a browser: it works, it is readable, and strangers' text stays text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reported import candidate, report

from noise_search.search.reporting.html import report_page
from noise_search.search.reporting.report import read_reports

pytestmark = pytest.mark.browser

MARKUP = "</script><script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)>\"'</style></title>\x00\u202egnp\ud800"
LINK = 'javascript:alert(3)" onclick="alert(4)'
PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAP8AAP///yH5BAAAAAAALAAAAAABAAEAAAICRAEAOw=="


class Opened:
    """A page from a file, and everything that it did."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.said: list[str] = []
        self.requests: list[str] = []
        page.on("dialog", lambda dialog: (self.said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda message: self.said.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path, reports: list[dict], pictures: list[list[str]]) -> None:
        text = report_page(read_reports(json.dumps(reports)), pictures)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        self.page.goto(path.as_uri())

    def column(self, number: int) -> list[str]:
        return self.page.locator(f"tbody tr td:nth-child({number})").all_inner_texts()


@pytest.fixture
def opened(browser: Any) -> Iterator[Opened]:
    context = browser.new_context(viewport={"width": 390, "height": 844})  # a phone
    yield Opened(context.new_page())
    context.close()


def test_a_report_is_shown_and_sorted(opened, tmp_path):
    opened.open(tmp_path / "page.html", [report(kept=[1, 3])], [[PICTURE, PICTURE]])
    assert opened.column(1) == ["1", "3", "0", "2"]  # best first, without a score last
    opened.page.get_by_role("button", name="candidate").click()
    assert opened.column(1) == ["0", "1", "2", "3"]
    assert opened.page.locator("th[aria-sort=ascending]").inner_text().startswith("candidate")
    score = opened.page.locator("th:nth-child(4) button")
    score.click()
    assert opened.column(1) == ["0", "3", "1", "2"]
    score.press("Enter")  # by keyboard too
    assert opened.column(1) == ["1", "3", "0", "2"]
    opened.page.get_by_role("button", name="status").click()
    assert opened.column(3) == ["finished", "finished", "finished", "pruned"]
    assert [image.evaluate("(image) => image.naturalWidth") for image in opened.page.locator("img").all()] == [1, 1]
    assert opened.said == []


def test_it_fits_a_phone_in_light_and_dark(opened, tmp_path):
    many = [candidate(index, score=index / 7, status="x" * 200) for index in range(40)]
    opened.open(tmp_path / "page.html", [report(candidates=many, seed="1" * 400)], [[PICTURE]])
    colors = []
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme)
        colors.append(opened.page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
        assert opened.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    assert colors == ["rgb(255, 255, 255)", "rgb(22, 25, 30)"]


def test_nothing_of_a_stranger_runs_or_is_fetched(opened, tmp_path):
    hostile = report(
        verifier=MARKUP, notes=[MARKUP, LINK], problems=[MARKUP], stopped=MARKUP, seed=MARKUP, held_out={"verifier": MARKUP},
        method={"name": MARKUP, MARKUP: MARKUP, LINK: LINK}, kept=[0, 1],
        candidates=[candidate(0, status=MARKUP, part=MARKUP, recipe=MARKUP), candidate(1, part=LINK, status=LINK, recipe=LINK)],
    )  # fmt: skip
    path = tmp_path / "page.html"
    opened.open(path, [hostile, hostile], [[PICTURE], []])
    for button in opened.page.get_by_role("button").all():
        button.click()
    for summary in opened.page.locator("summary").all():
        summary.click()
    opened.page.wait_for_timeout(300)
    assert opened.said == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [path.as_uri()]
    tags = opened.page.evaluate("() => [...document.querySelectorAll('script, img, style, title')].map((one) => one.tagName)")
    assert sorted(tags) == ["IMG", "SCRIPT", "STYLE", "TITLE"]
    names = opened.page.evaluate("() => [...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())")
    assert not [name for name in names if name.startswith("on")]


def test_its_policy_stops_what_would_slip_through(opened, tmp_path):
    """The second wall: markup that were not escaped could neither run nor call home."""
    path = tmp_path / "page.html"
    opened.open(path, [report()], [[PICTURE]])
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("<h1>", "<script>alert(1)</script><img src=http://127.0.0.1:9/x onerror=alert(2)><h1>"))
    failed: list[str | None] = []
    opened.page.on("requestfailed", lambda request: failed.append(request.failure))
    opened.page.goto(path.as_uri())
    opened.page.wait_for_timeout(300)
    assert [said for said in opened.said if not said.startswith("console: ")] == []
    assert any("Content Security Policy" in said for said in opened.said)  # and the browser says so
    assert failed == ["csp"]
