"""Widgets in a real JupyterLab, in headless Chromium: they do what a reader asks of them.

The prompt lab is that of notebook 04; the other widgets stand in small notebooks of their own.

Skips, and says why, where Chromium or playwright is missing. Screenshots go to $EMOLAB_SCREENSHOTS, if that is set.
"""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import emolab as el

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed: apt install chromium", allow_module_level=True)

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "04_prompt_lab.ipynb"
DESK = """import emolab as el
subject = el.load()
desk = el.steering_desk(subject, el.load_vectors(el.DEFAULT), {"sad": 0.4}, "The letter said that", max_tokens=5)
desk"""
SCOPE = """
import emolab as el
from emolab.persistence import persistence

subject, vectors = el.load(), el.load_vectors(el.DEFAULT)
el.brevity_scope(subject, vectors, persistence(subject, vectors, ["afraid", "calm"], seeds=2))
"""
WATCH = """import emolab as el
subject, vectors = el.load(), el.load_vectors(el.DEFAULT)
el.watch_chat(subject, vectors, ["angry", "calm"], text="Hello <img src=x onerror='window.ran=1'>", max_tokens=20)"""
QUIET = [
    "--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-default-apps", "--disable-domain-reliability",
]  # fmt: skip
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
RUNNING = "[...document.querySelectorAll('.jp-InputPrompt')].some(node => node.textContent.includes('*'))"
expect = playwright.expect
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of notebook 04 in a JupyterLab that this test has started."""
    root, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("jupyter")
    shutil.copy(NOTEBOOK, root)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
    nbformat.write(new_notebook(cells=[new_code_cell(SCOPE)], metadata=kernel), root / "scope.ipynb")
    cells = [new_code_cell(DESK), new_code_cell("print('free:', desk.running)")]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), root / "desk.ipynb")
    cells = [new_code_cell(WATCH), new_code_cell("el.emotion_map(subject, vectors)")]
    nbformat.write(new_notebook(cells=cells, metadata=kernel), root / "watch.ipynb")
    settings = {
        "labconfig/page_config.json": {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}},
        "lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {
            "windowingMode": "none",
            "autoStartDefaultKernel": True,
        },
    }
    for name, values in settings.items():
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("DATA", "RUNTIME")}
    environment = {**os.environ, **folders, "JUPYTER_CONFIG_DIR": str(home), "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={root}", "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=root)
    try:
        wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, home / "log.txt")
        yield f"http://127.0.0.1:{port}/lab/tree/{NOTEBOOK.name}?token={token}&reset"
    finally:
        server.terminate()
        server.wait(20)


def wait_for(url: str, server: subprocess.Popen, log: Path, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        try:
            urlopen(url, timeout=2).close()
            return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(address):
    """The notebook, opened but not run. `page.asked` are the requests, `page.said` the console's complaints."""
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1400, "height": 1500})
        opened(page, address)
        yield page
        browser.close()


def opened(page, address: str) -> None:
    """Open a notebook and wait for its kernel, with an ear on what the page asks for and complains of."""
    page.asked, page.said = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("websocket", lambda socket: page.asked.append(socket.url))
    page.on("console", lambda message: message.type == "error" and page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.add_locator_handler(page.locator(".jp-Dialog .jp-mod-accept"), lambda accept: accept.click())
    page.goto(address)
    page.locator(IDLE).wait_for(timeout=60_000)
    page.get_by_text("(ipykernel) | Idle").wait_for(timeout=60_000)


def run_all(page) -> None:
    for _ in range(5):  # what is asked of a kernel that is still connecting gets lost
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        page.wait_for_timeout(2500)
        if page.evaluate(RUNNING):
            break
    page.wait_for_function(f"!({RUNNING})", timeout=120_000)


def set_theme(page, theme: str) -> None:
    for item in ("Settings", "Theme", f"JupyterLab {theme}"):
        page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel").get_by_text(item, exact=True).click()
    page.wait_for_function(f"document.body.dataset.jpThemeName === 'JupyterLab {theme}'")
    page.wait_for_timeout(500)


def local(urls: list[str]) -> bool:
    return all(re.match(r"(https?|wss?)://127\.0\.0\.1:|data:|blob:", url) for url in urls)


@pytest.fixture(scope="module")
def lab(page):
    """The first prompt lab of the notebook, after Run All."""
    run_all(page)
    page.locator(".emolab-lab").first.wait_for(timeout=20_000)
    lab = page.locator(".emolab-lab").first
    lab.scroll_into_view_if_needed()
    expect(lab).to_have_attribute("aria-busy", "false")
    return lab


def tokens(lab, number: int = 0) -> str:
    return "".join(lab.locator(".strip").nth(number).locator(".token").all_text_contents())


def colours(lab) -> list[str]:
    return lab.locator(".strip").first.locator(".token").evaluate_all("all => all.map(one => one.style.background)")


def tracks(lab) -> list[str]:
    return lab.locator("svg[role=img] .track").evaluate_all("all => all.map(one => one.getAttribute('points'))")


def answered(lab) -> None:
    expect(lab).to_have_attribute("aria-busy", "false")


def picture(page, lab, name: str) -> None:
    if folder := os.environ.get("EMOLAB_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        lab.scroll_into_view_if_needed()
        lab.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_the_saved_notebook_shows_its_twins_before_any_kernel_runs(page):
    twin = page.locator(".jp-OutputArea .emolab-twin").first
    twin.scroll_into_view_if_needed()
    expect(twin).to_be_visible()
    assert page.locator(".emolab-lab").count() == 0


def test_typing_changes_strip_and_tracks(page, lab):
    before = tracks(lab)
    area = lab.get_by_label("Prompt", exact=True)
    area.fill("")
    expect(lab.get_by_role("alert")).to_contain_text("the text is empty")
    assert tracks(lab) == before  # the last good view stays
    area.press_sequentially("The water rose to my chest and the door is locked.", delay=15)
    expect(lab.locator(".strip").first).to_have_text(re.compile("locked"))
    answered(lab)
    assert area.input_value() == tokens(lab) == "The water rose to my chest and the door is locked."
    assert tracks(lab) != before and lab.locator(".error").text_content() == ""
    assert sum("rgba" in colour for colour in colours(lab)) == len(colours(lab)) - 1  # all but token 0


def test_layer_unit_and_emotion(page, lab):
    before, colour = tracks(lab), colours(lab)
    slider = lab.get_by_label("Layer")
    first = int(slider.input_value())
    slider.focus()
    slider.press("ArrowLeft")
    slider.press("ArrowLeft")
    layer = int(slider.input_value())
    assert layer == first - 2
    expect(lab.locator(".caption")).to_contain_text(f"layer {layer}")
    answered(lab)
    assert tracks(lab) != before and colours(lab) != colour
    lab.get_by_label("Unit").select_option("cosine")
    expect(lab.locator(".caption")).to_contain_text("cosine")
    lab.get_by_label("Unit").select_option("sd")
    expect(lab.locator(".caption")).to_contain_text("sd of neutral tokens")
    count = len(tracks(lab))
    search = lab.get_by_label("Add an emotion")
    search.fill("nervo")
    search.press("Enter")
    expect(lab.locator("svg[role=img] .track")).to_have_count(count + 1)
    expect(lab.locator(".strip").first).to_have_attribute("aria-label", re.compile("nervous"))
    lab.get_by_role("button", name="Top for this text").click()
    expect(lab.locator("svg[role=img] .track")).to_have_count(5)


def test_the_strip_is_walked_by_keyboard(lab):
    strip = lab.locator(".strip").first
    strip.locator(".token").first.focus()
    for _ in range(3):
        lab.page.keyboard.press("ArrowRight")
    expect(lab.locator(".detail")).to_contain_text(re.compile(r"token 3 .*: .* [+-]?\d+\.\d\d, rank \d+"))
    lab.page.keyboard.press("End")
    expect(strip.locator(".token").last).to_be_focused()


def test_what_is_typed_never_runs(page, lab):
    text = '<img src=x onerror="window.ran=1"><script>window.ran=1</script> \x1b[31mred שלום \u200b\u202eabc'
    lab.get_by_label("Prompt", exact=True).fill(text)
    expect(lab.locator(".strip").first).to_have_text(re.compile("שלום"))
    answered(lab)
    assert "<script>window.ran=1</script>" in tokens(lab) and "␛[31m" in tokens(lab) and "◌" in tokens(lab)
    assert lab.locator("img, script").count() == 0
    lab.get_by_label("Prompt", exact=True).fill("<b>paste</b> " * 8000)
    expect(lab.get_by_role("alert")).to_contain_text("tokens and the lab shows at most 1,024")
    assert page.evaluate("window.ran === undefined")


def test_chat_preset_and_compare(page, lab):
    lab.get_by_label("Preset").select_option("danger")
    expect(lab.locator(".strip").first).to_have_text(re.compile("flames"))
    lab.get_by_label("chat").check()
    expect(lab.locator(".strip .role").first).to_have_text("user")
    lab.get_by_role("button", name="Compare two").click()
    expect(lab.locator(".strip")).to_have_count(3)
    answered(lab)
    assert "flames" in tokens(lab, 1) and "toast" in tokens(lab, 2)
    lab.get_by_label("Prompt B, turn 1", exact=True).fill(
        "I smelled smoke in the hallway. It was my neighbour's grill."
    )
    expect(lab.locator(".strip").nth(2)).to_have_text(re.compile("grill"))
    answered(lab)
    picture(page, lab, "light_compare")
    lab.get_by_label("chat").uncheck()
    answered(lab)


def test_sweep(page, lab):
    lab.get_by_role("button", name="Sweep a number").click()
    expect(lab.get_by_label("Score of the last token against x", exact=True)).to_be_visible()
    answered(lab)
    before = tracks(lab)
    lab.get_by_label("Template").fill("My fever is {x} degrees")
    lab.get_by_label("Values of x").fill("36, 37, 38, 39, 40, 41")
    lab.get_by_role("button", name="Run the sweep").click()
    answered(lab)
    assert tracks(lab) != before and all(len(points.split()) == 6 for points in tracks(lab))
    picture(page, lab, "light_sweep")
    lab.get_by_label("Template").fill("no slot")
    lab.get_by_role("button", name="Run the sweep").click()
    expect(lab.get_by_role("alert")).to_contain_text("has no slots {x}")


def test_freeze_and_code(page, lab):
    lab.get_by_role("button", name="One prompt").click()
    expect(lab.locator(".strip")).to_have_count(1)
    lab.get_by_label("Prompt", exact=True).fill("Snow fell, and nobody came.")
    expect(lab.locator(".strip").first).to_have_text(re.compile("nobody"))
    answered(lab)
    area = page.locator(".jp-OutputArea").filter(has=lab).first
    lab.get_by_role("button", name="Freeze").click()
    expect(area.locator(".emolab-twin").last).to_contain_text("Snow fell, and nobody came.")
    lab.get_by_role("button", name="Copy as code").click()
    code = lab.get_by_label("Code").input_value()
    assert code.startswith("el.prompt_lab(") and "text='Snow fell, and nobody came.'" in code


def test_light_and_dark(page, lab):
    lab.get_by_label("Preset").select_option("desperation")
    expect(lab.locator(".strip").first).to_have_text(re.compile("rent"))
    answered(lab)
    seen = {}
    for theme in ("Light", "Dark"):
        set_theme(page, theme)
        picture(page, lab, theme.lower())
        seen[theme] = lab.evaluate("node => getComputedStyle(node).color")
    assert seen["Light"] != seen["Dark"]


def test_no_complaint_and_no_request_beyond_this_machine(page, lab):
    assert local(page.asked)
    assert page.said == []


def test_the_brevity_scope(page, address):
    """Another emotion, another view, a text of one's own: each answer differs, and what is typed never runs."""
    other = page.context.browser.new_page(viewport={"width": 1400, "height": 1500})
    opened(other, address.replace(NOTEBOOK.name, "scope.ipynb"))
    run_all(other)
    scope = other.locator(".jp-OutputArea-output .widget-vbox").first
    figure = scope.get_by_role("img")
    expect(scope).to_contain_text("an emotion rises in")
    first = figure.get_attribute("src")
    scope.get_by_label("Emotion", exact=True).select_option("calm")
    expect(scope).to_contain_text("calm rises in")
    assert figure.get_attribute("src") != first
    scope.get_by_label("Show", exact=True).select_option("One passage")
    expect(scope).to_contain_text("calm averages")
    first = scope.text_content()
    scope.get_by_label("Passage", exact=True).select_option(index=1)
    expect(scope).not_to_have_text(first)
    scope.get_by_label("Show", exact=True).select_option("Your own text")
    expect(scope).to_contain_text("Nora")
    area = scope.get_by_label("Your text", exact=True)
    area.fill("No mark is in this text.")
    scope.get_by_role("button", name="Read it").click()
    expect(scope.get_by_role("alert")).to_contain_text("no marks |")
    area.fill(
        "The bus came and she got on at once. | <script>window.ran=1</script> She <i>shook</i> with fear. | She sat by "
        "the window and the bus went on along the river."
    )
    area.press("Tab")
    expect(scope).to_contain_text("<script>window.ran=1</script>")
    expect(figure).to_be_visible()
    for theme in ("Light", "Dark"):
        set_theme(other, theme)
        picture(other, scope, f"scope_{theme.lower()}")
    assert other.evaluate("window.ran === undefined") and scope.locator("script, i").count() == 0
    assert local(other.asked) and other.said == []
    other.close()


def test_the_steering_desk(page, address):
    """It writes and streams while the kernel is free, really stops, and what is typed never runs."""
    other = page.context.browser.new_page(viewport={"width": 1400, "height": 1500})
    opened(other, address.replace(NOTEBOOK.name, "desk.ipynb"))
    run_all(other)
    desk = other.locator(".emolab-desk")
    expect(desk).to_have_attribute("aria-busy", "false")
    texts = desk.locator(".strip")
    expect(texts).to_have_count(2)
    assert texts.nth(0).locator(".pushed").count() == 0 < texts.nth(1).locator(".pushed").count()

    desk.get_by_label("Add an emotion").fill("joyf")
    desk.get_by_label("Add an emotion").press("Enter")
    slider = desk.get_by_label("Strength of joyful")
    expect(slider).to_be_focused()
    slider.press("ArrowRight")
    assert slider.input_value() == "0.35"
    prompt = desk.get_by_label("Prompt", exact=True)
    prompt.fill('Nobody <img src=x onerror="window.ran=1"> came, and')
    desk.get_by_label("Tokens to write").fill("150")
    prompt.press("Control+Enter")
    expect(desk.get_by_role("status")).to_contain_text(re.compile(r"writing, \d+ of at most 150 tokens"))
    assert "Nobody <img" in texts.nth(1).text_content() and texts.nth(1).locator(".pushed").count() == 0
    cell = other.locator(".jp-CodeCell").nth(1)
    cell.locator(".cm-content").click()
    other.keyboard.press("Control+Enter")  # the kernel is free meanwhile
    expect(cell.locator(".jp-OutputArea")).to_contain_text("free: True")
    desk.get_by_role("button", name="Stop").click()
    expect(desk).to_have_attribute("aria-busy", "false")
    expect(desk).to_contain_text("Stopped. Both texts")
    assert 15 < texts.nth(1).locator(".token").count() < 160 and texts.nth(1).locator(".pushed").count() > 10
    desk.get_by_label("Emotion that colours").select_option("joyful")
    texts.nth(1).locator(".token").first.focus()
    other.keyboard.press("ArrowRight")
    expect(desk.locator(".detail")).to_contain_text(re.compile("With the push, token 1, .*joyful.*prompt, pushed"))
    for theme in ("Light", "Dark"):
        set_theme(other, theme)
        picture(other, desk, f"desk_{theme.lower()}")

    prompt.fill("")
    desk.get_by_role("button", name="Run").click()
    expect(desk.get_by_role("alert")).to_contain_text("the prompt is empty")
    desk.get_by_role("button", name="Freeze").click()
    expect(other.locator(".emolab-twin").last).to_contain_text("Nobody <img")
    assert other.evaluate("window.ran === undefined") and desk.locator("img, script").count() == 0
    assert local(other.asked) and other.said == []
    other.close()


def test_the_watched_chat_and_the_map_to_click_on(page, address):
    """Alarms come while it writes and show their tokens; a click on the map tells all about an emotion."""
    other = page.context.browser.new_page(viewport={"width": 1400, "height": 1500})
    opened(other, address.replace(NOTEBOOK.name, "watch.ipynb"))
    run_all(other)
    chat = other.locator(".emolab-watch")
    chat.get_by_role("button", name="Send").click()
    expect(chat.locator(".message")).to_have_count(2)
    expect(chat).to_have_attribute("aria-busy", "false")
    assert chat.locator(".threshold").count() == 4 and "Hello <img" in chat.locator(".message").first.text_content()
    message = chat.get_by_label("Message", exact=True)
    angry = next(row for row in el.prompts("switching") if row["id"] == "angry-1")["segments"]
    message.fill(" ".join(segment["text"] for segment in angry if segment["state"] == "angry"))
    message.press("Control+Enter")
    alarm = chat.get_by_label("Alarms").get_by_role("button", name=re.compile("angry")).first
    alarm.click()
    expect(chat.locator(".token.found").first).to_be_visible()
    expect(chat).to_have_attribute("aria-busy", "false", timeout=60_000)
    assert chat.locator(".message").count() == 4

    chart = other.locator(".emolab-map")
    chart.locator(".emotion", has_text=re.compile("^furious")).first.dispatch_event("click")
    expect(chart.locator(".told h4")).to_have_text("furious")
    kin = chart.locator(".told li button").first
    nearest = kin.text_content()
    kin.click()
    expect(chart.locator(".told h4")).to_have_text(nearest)
    chart.get_by_label("Find an emotion").press_sequentially("seren")
    chart.get_by_label("Find an emotion").press("Enter")
    expect(chart.locator(".told h4")).to_have_text("serene")
    assert chart.locator(".told .words").text_content().strip() and chart.locator("details").count() == 3
    for theme in ("Light", "Dark"):
        set_theme(other, theme)
        picture(other, chat, f"watch_{theme.lower()}")
        picture(other, chart, f"map_{theme.lower()}")
    assert other.evaluate("window.ran === undefined") and chat.locator("img, script").count() == 0
    assert local(other.asked) and other.said == []
    other.close()
