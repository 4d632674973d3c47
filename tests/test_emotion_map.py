"""The map to click on: what it shows, in a notebook and in a page of its own."""

import json
import re
import shutil
from dataclasses import replace

import pytest

import emolab as el
from emolab.geometry import Geometry
from emolab.interactive import map_data, top_tokens, write_map
from emolab.widgets.emotion_map import EmotionMap


@pytest.fixture(scope="module")
def vectors():
    return el.load_vectors(el.DEFAULT)


@pytest.fixture(scope="module")
def geometry(vectors) -> Geometry:
    """A map whose places are the first two components: UMAP takes half a minute to compile."""
    import numpy as np
    import pandas as pd

    coordinates = vectors.coordinates()
    points = pd.DataFrame(coordinates[:, :2], columns=["x", "y"], index=pd.Index(vectors.emotions))
    points = points.assign(cluster=0, pleasure=np.linspace(-1, 1, len(points)), arousal=0.0, dominance=0.0)
    return Geometry(points, points, pd.Series(), vectors.cosines(), [], 0.0, points, {}, 20, "probe", "<b>model</b>")


def by_name(shown: dict) -> dict[str, dict]:
    return {one["name"]: one for one in shown["emotions"]}


def test_each_emotion_has_its_nearest_stories_and_place(vectors, geometry):
    shown = by_name(map_data(geometry))
    calm = shown["calm"]
    assert [name for name, _ in calm["near"]] == list(vectors.nearest("calm", 8).index)
    assert calm["sense"] == el.senses()["calm"]
    texts = {story.text for story in el.stories(emotions=["calm"])}
    assert len(calm["stories"]) == 3 and {story["text"] for story in calm["stories"]} <= texts
    assert all(0 <= one[axis] <= 1 for one in shown.values() for axis in "xy")
    assert shown[vectors.emotions[0]]["colour"] != shown[vectors.emotions[-1]]["colour"]


def test_without_ratings_one_colour_and_no_pleasure(geometry):
    shown = map_data(replace(geometry, points=geometry.points.assign(pleasure=float("nan"))))
    assert len({one["colour"] for one in shown["emotions"]}) == 1
    assert "pleasure" not in shown["emotions"][0]["placed"] and json.dumps(shown, allow_nan=False)


def test_top_tokens_are_those_of_the_lens(vectors, tiny):
    words = top_tokens(el.load(), vectors, 6)
    assert set(words) == set(vectors.emotions) and {len(row) for row in words.values()} == {6}
    assert "·proudly" in words["proud"] and "·calm" not in words["furious"]
    with pytest.raises(el.EmolabError):
        top_tokens(tiny, vectors)


def test_the_page_is_closed_and_its_texts_are_data(geometry, tmp_path):
    nasty = "</script><img src=x onerror=alert(1)>"
    page = write_map(geometry, tmp_path / "map.html", {"calm": (nasty,)}).read_text(encoding="utf-8")
    assert nasty not in page and "<b>model" not in page
    assert "default-src 'none'" in page and not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    held = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert by_name(held)["calm"]["words"] == [nasty]
    assert len(page) < 1_000_000


def test_the_widget_tells_about_the_chosen_one(geometry):
    shown = EmotionMap(map_data(geometry, {"calm": ("<i>still</i>",)}, "calm"))
    html = shown.freeze().html
    assert "serene" in html and "&lt;i&gt;still" in html and "<script" not in html
    shown.chosen = "angry"
    assert el.senses()["angry"] in shown.freeze().html
    assert "text/html" in shown._repr_mimebundle_()[0]
    with pytest.raises(el.EmolabError, match="not on this map"):
        shown.chosen = "nobody"
    with pytest.raises(el.EmolabError, match="not on this map"):
        map_data(geometry, chosen="nobody")


def test_a_click_tells_about_an_emotion(geometry, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed: apt install chromium")
    nasty = "<img src=x onerror='window.ran=1'>"
    path = write_map(geometry, tmp_path / "map.html", {"calm": (nasty,)})
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, asked, errors = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        told = page.locator(".told")
        page.evaluate(  # other dots may lie over it, so the event goes to its own
            "[...document.querySelectorAll('g.emotion text')].find(node => node.textContent === 'calm').parentNode"
            ".dispatchEvent(new MouseEvent('click'))"
        )
        assert el.senses()["calm"] in told.inner_text() and nasty in told.inner_text()
        told.locator("li button").first.click()  # its nearest
        assert told.locator("h4").inner_text() == geometry.cosines["calm"].drop("calm").idxmax()
        page.fill("input", "angr")
        page.keyboard.press("Enter")
        assert told.locator("h4").inner_text() == "angry" and page.locator("line").count() == 8
        page.fill("input", "nobody")
        page.keyboard.press("Enter")
        assert "not on this map" in told.inner_text()
        assert not page.evaluate("window.ran") and asked == [path.as_uri()] and not errors
        browser.close()
