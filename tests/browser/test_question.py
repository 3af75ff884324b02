"""A question on ComfyUI's page, in both renderers: shown, picked, ranked, refused, counted down, taken away."""

from __future__ import annotations

import base64
import io

import pytest

pytestmark = pytest.mark.browser

from PIL import Image

MODULE = "/extensions/noise-search/js/question/question.js"
COLORS = ["#b03030", "#30b030", "#3030b0", "#b0b030", "#30b0b0", "#b030b0"]
MOUNT = """async ([module, state]) => {
    const { mountQuestion } = await import(module);
    const box = document.createElement("div");
    box.id = "ns-test";
    box.style.cssText = "position:fixed; left:300px; top:120px; width:520px; height:420px; z-index:9999";
    document.body.append(box);
    window.nsSent = [];
    window.nsSend = (body) => { window.nsSent.push(body); return window.nsAnswer?.(body); };
    window.nsPicked = [];
    app.canvas.canvas.addEventListener("pointerdown", () => window.nsPicked.push("canvas"));
    window.nsView = mountQuestion(box, state, (body) => window.nsSend(body), (name) => window.nsThumbs[name]);
}"""


def picture(color: str, side: int = 64) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (side, side), color).save(out, "JPEG")
    return out.getvalue()


def state(question_id: str = "a1", candidates: tuple[int, ...] = (3, 4, 5, 6), **more) -> dict:
    question = {
        "id": question_id, "kind": "pick", "candidates": list(candidates), "best": 3, "seconds_left": None, "asked": 2,
        "model_ready": False, "accuracy": "", **more,
    }  # fmt: skip
    rows = [{"i": index, "state": "finished", "score": 0.1, "thumb": f"thumb{index}"} for index in candidates]
    return {"version": 1, "id": "run", "phase": "asking", "candidates": rows, "question": question}


class Shown:
    """The question of a page, by what a user sees of it."""

    def __init__(self, web, first: dict) -> None:
        self.web, self.page = web, web.page
        web.page.route("**/noise_search/questions/**", self._picture)
        self.served: list[str] = []
        web.page.evaluate("() => { window.nsThumbs = {} }")
        web.page.evaluate(MOUNT, [MODULE, first])
        self.root = web.page.locator("#ns-test .ns-choice")

    def _picture(self, route) -> None:
        path = route.request.url.split("/noise_search/questions/")[1]
        self.served.append(path)
        if path.startswith("gone"):
            route.fulfill(status=404)
        else:
            index = int(path.split("/")[1])
            route.fulfill(body=picture(COLORS[index % len(COLORS)]), content_type="image/jpeg")

    @property
    def sent(self) -> list[dict]:
        return self.page.evaluate("() => window.nsSent")

    def button(self, name: str):
        return self.root.get_by_role("button", name=name, exact=True)

    def pictures(self):
        return self.root.locator(".ns-choice-picture")

    def update(self, new: dict) -> None:
        self.page.evaluate("(state) => window.nsView.update(state)", new)

    def place(self) -> list[str]:
        return self.root.locator(".ns-place").all_text_contents()

    def focused(self) -> str:
        return self.page.evaluate("() => document.activeElement.dataset.candidate ?? ''")


@pytest.fixture
def shown(page):
    yield Shown(page, state())
    assert page.errors == []


def test_the_set_is_shown_side_by_side(shown, tmp_path):
    assert shown.pictures().count() == 4
    shown.page.wait_for_function("() => [...document.querySelectorAll('#ns-test img')].every(i => i.naturalWidth === 64)")
    assert sorted(shown.served) == ["a1/3", "a1/4", "a1/5", "a1/6"]
    labels = [one.get_attribute("aria-label") for one in shown.pictures().all()]
    assert labels == [
        "Picture 1, candidate 3, the best so far", "Picture 2, candidate 4", "Picture 3, candidate 5", "Picture 4, candidate 6",
    ]  # fmt: skip
    assert shown.root.locator(".ns-badge").all_text_contents() == ["best so far"]
    assert shown.root.locator(".ns-key").all_text_contents() == ["1", "2", "3", "4"]
    boxes = [one.bounding_box() for one in shown.pictures().all()]
    assert all(box["width"] >= 90 and box["height"] >= 90 for box in boxes)
    assert len({round(box["y"]) for box in boxes}) == 1  # one row
    assert not shown.button("Let the model take over").is_visible() and not shown.button("Done").is_visible()
    shown.web.screenshot(tmp_path / "question.png", fit=False)


def test_a_click_picks_and_the_canvas_does_not_see_it(shown):
    shown.pictures().nth(2).click()
    assert shown.sent == [{"command": "answer", "question": "a1", "ranking": [5]}]
    assert shown.page.evaluate("() => window.nsPicked") == []
    assert shown.pictures().first.is_disabled() and shown.button("All bad").is_disabled()
    shown.page.keyboard.press("1")
    shown.pictures().nth(1).click(force=True)
    assert len(shown.sent) == 1  # one answer is enough
    shown.update(state("b2", (5, 7, 8)))
    assert shown.pictures().count() == 3 and shown.pictures().first.is_enabled()
    shown.button("All bad").click()
    assert shown.sent[1:] == [{"command": "answer", "question": "b2", "ranking": []}]


def test_ranking_by_clicks(shown):
    shown.button("Rank").click()
    assert shown.root.get_by_text("Click them in order, best first").is_visible()
    assert shown.button("Done").is_disabled()
    for place in (1, 3, 0):
        shown.pictures().nth(place).click()
    assert shown.place() == ["3", "1", "", "2"]
    shown.pictures().nth(3).click()  # taken back
    assert shown.place() == ["2", "1", "", ""]
    shown.pictures().nth(2).click()
    assert shown.sent == []
    shown.button("Done").click()
    assert shown.sent == [{"command": "answer", "question": "a1", "ranking": [4, 3, 5]}]


@pytest.mark.parametrize(
    ("keys", "ranking"),
    [
        (["2"], [4]), (["0"], []), (["ArrowRight", "ArrowRight", "Enter"], [5]), (["ArrowRight", "ArrowLeft", "Enter"], [3]),
        (["ArrowLeft", "Enter"], [3]), (["r", "3", "1", "Tab"], None),
    ],
)  # fmt: skip
def test_keys(shown, keys, ranking):
    shown.pictures().first.focus()
    for key in keys:
        shown.page.keyboard.press(key)
    if ranking is None:  # ranking waits for Done
        assert shown.sent == [] and shown.place() == ["2", "", "1", ""]
        shown.button("Done").press("Enter")
        assert [body["ranking"] for body in shown.sent] == [[5, 3]]
    else:
        assert [body["ranking"] for body in shown.sent] == [ranking]


def test_keys_go_no_further_than_the_question(shown):
    """ComfyUI's own keys (R refreshes its nodes) are not pressed by an answer."""
    shown.page.evaluate("() => { window.nsKeys = []; window.addEventListener('keydown', (e) => window.nsKeys.push(e.key)) }")
    shown.pictures().first.focus()
    for key in ("r", "ArrowRight", "7"):
        shown.page.keyboard.press(key)
    assert shown.page.evaluate("() => window.nsKeys") == []
    assert shown.sent == []  # there is no seventh picture
    assert shown.focused() == "4"


def test_the_model_may_take_over_when_it_is_ready(shown):
    words = "it foretold 7 of your last 9 picks; guessing would have 2.3"
    shown.update(state(model_ready=True, accuracy=words))
    assert shown.root.get_by_text(words).is_visible()
    shown.button("Let the model take over").click()
    assert shown.sent == [{"command": "answer", "question": "a1", "take_over": True}]


def test_a_time_out_is_counted_down(shown):
    assert shown.root.get_by_role("timer").text_content() == ""
    shown.page.evaluate("() => { window.nsNow = 0; performance.now = () => window.nsNow }")
    shown.update(state(seconds_left=41.2))
    assert shown.root.get_by_role("timer").text_content() == "42 s left"
    shown.page.evaluate("() => { window.nsNow = 1500 }")
    shown.page.wait_for_function("() => document.querySelector('#ns-test [role=timer]').textContent === '40 s left'")
    shown.update(state(seconds_left=0.0))
    assert shown.root.get_by_role("timer").text_content() == "0 s left"


def test_a_refused_answer_is_said_and_can_be_given_again(shown):
    shown.page.evaluate("() => { window.nsAnswer = () => Promise.reject(new Error('<img src=x onerror=alert(1)> is gone')) }")
    shown.pictures().first.click()
    assert shown.root.get_by_text("<img src=x onerror=alert(1)> is gone").is_visible()
    assert shown.root.locator(".ns-note img").count() == 0
    shown.page.evaluate("() => { window.nsAnswer = () => true }")
    shown.pictures().nth(1).click()
    assert [body["ranking"] for body in shown.sent] == [[3], [4]]


def test_a_failed_answer_that_the_page_reported_itself_can_be_given_again(shown):
    shown.page.evaluate("() => { window.nsAnswer = () => Promise.resolve(false) }")
    shown.pictures().first.click()
    shown.page.wait_for_function("() => !document.querySelector('#ns-test .ns-choice-picture').disabled")
    shown.pictures().first.click()
    assert len(shown.sent) == 2


def test_without_the_large_picture_the_thumbnail_stands_in(page):
    url = "data:image/jpeg;base64," + base64.b64encode(picture("#b03030", 16)).decode()
    page.page.evaluate("() => { window.nsThumbs = {} }")
    shown = Shown(page, {**state(), "question": None})
    shown.page.evaluate("(url) => { window.nsThumbs = { thumb3: url, thumb4: url } }", url)
    shown.update(state("gone", (3, 4)))
    shown.page.wait_for_function("() => [...document.querySelectorAll('#ns-test img')].every(i => i.naturalWidth === 16)")
    assert shown.pictures().count() == 2


def test_it_comes_and_goes_with_the_question(shown):
    shown.update({**state(), "question": None})
    assert not shown.root.is_visible() and shown.pictures().count() == 0
    shown.update(state("c3", (8, 9)))
    assert shown.root.is_visible() and shown.pictures().count() == 2
    shown.page.evaluate("() => window.nsView.remove()")
    assert shown.page.locator("#ns-test .ns-choice").count() == 0


def test_an_update_of_the_same_question_keeps_what_was_ranked(shown):
    shown.button("Rank").click()
    shown.pictures().nth(1).click()
    shown.update(state(seconds_left=20))
    assert shown.place() == ["", "1", "", ""]
    assert len(shown.served) == 4  # no picture was asked for again


def test_pictures_can_fill_the_window(shown, tmp_path):
    """Also where the graph is zoomed: what is in a node is scaled with it, what fills the window is not."""
    shown.page.evaluate("() => { document.querySelector('#ns-test').style.transform = 'scale(0.4)' }")
    small = shown.pictures().first.bounding_box()
    shown.pictures().first.focus()
    shown.page.keyboard.press("e")
    shown.page.wait_for_function("() => document.querySelector('#ns-test .ns-choice').getBoundingClientRect().width > 1500")
    shown.web.screenshot(tmp_path / "large.png", fit=False)
    large = shown.pictures().first.bounding_box()
    assert large["width"] > 5 * small["width"] and large["width"] > 700 and large["height"] > 350  # two by two
    assert shown.focused() == "3"
    shown.page.keyboard.press("Escape")
    assert shown.pictures().first.bounding_box() == small
    shown.button("Enlarge").click()
    shown.page.keyboard.press("3")
    assert shown.sent[0]["ranking"] == [5]
    shown.update(state("b2", (5, 7)))  # the next question is as large
    assert shown.pictures().first.bounding_box()["width"] > 700 and shown.pictures().first.bounding_box()["height"] > 700
    shown.update({**state(), "question": None})
    assert not shown.root.is_visible()


def test_sixteen_pictures_and_light_colors(shown, tmp_path):
    shown.update(
        state("d4", tuple(range(3, 19)), seconds_left=30, model_ready=True, accuracy="it foretold 3 of your last 5 picks")
    )
    assert shown.pictures().count() == 16
    assert shown.root.locator(".ns-key").count() == 9
    shown.page.evaluate("() => document.body.classList.remove('dark-theme')")
    shown.web.screenshot(tmp_path / "sixteen.png", fit=False)
    inside = shown.root.bounding_box()
    assert inside["height"] <= 421 and inside["width"] <= 521
    assert shown.button("All bad").bounding_box()["y"] < inside["y"] + inside["height"]
