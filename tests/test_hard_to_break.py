"""Whatever is given: an answer that is right, or an EmolabError; and whatever happens: nothing lost, no half file."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NEUTRAL, tiny_stories, tiny_subject, tiny_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import emolab as el
from emolab import activations, card, corpus, files, likelihood
from emolab.card import Card
from emolab.claims import Claim
from emolab.workshop import workshop

many = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
characters = st.characters(exclude_categories=())  # lone surrogates too
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(characters, max_size=9) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)
paths = st.text(st.sampled_from("\x00\ud800/.~\\ab:* \n"), max_size=12) | st.just("x" * 5000)
objects = st.none() | st.integers() | st.binary() | st.lists(st.integers()) | st.just(object)
DEEP = "[" * 30_000 + "]" * 30_000
LIES = ["", "{", DEEP, "9" * 5000, "\x00", '{"a": "\\ud800"}', "null", "[1]"]


def refused(what, *given):
    """Whether it is refused by an error of ours, the only one that is allowed."""
    try:
        what(*given)
    except el.EmolabError as error:
        assert len(str(error)) < 12_000  # some messages name a path
        return True
    return False


# --- names, paths and files --------------------------------------------------------------------------------------


@many
@given(given=paths | objects)
@pytest.mark.parametrize(
    "what", [el.load, el.load_vectors, el.load_card, el.stories, el.prompts], ids=lambda f: f.__name__
)
def test_what_is_no_path_or_name_is_refused(what, given):
    assert refused(what, given)


@many
@given(given=paths | objects)
def test_places_that_can_not_be_written_are_refused(tiny_vectors, tmp_path_factory, given):
    os.chdir(tmp_path_factory.getbasetemp())
    place = f"/dev/null/{given}.safetensors" if isinstance(given, str) else given
    assert refused(tiny_vectors.save, place) and refused(el.export, tiny_vectors, place, "calm")


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie[:9])
def test_json_that_lies_is_refused_everywhere(tiny_vectors, tmp_path, lie):
    path = tmp_path / "it"
    for text in (lie, f'{{"claims": {lie}, "info": {{}}}}', f'{{"emotion": "sad", "text": "rain", "part": {lie}}}'):
        path.write_text(text)
        assert refused(el.load_card, path)
        assert refused(el.stories, path) or lie in ("null", "9" * 5000)
    file = replace(tiny_vectors, evidence=None).save(tmp_path / "it.safetensors")
    with safe_open(file, "numpy") as content:
        tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    save_file(tensors, file, metadata={"emolab": lie})
    assert refused(el.load_vectors, file)


def test_a_device_or_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        assert all(refused(what, path) for what in (el.load_card, el.load_vectors, el.stories))


def test_stories_saved_by_an_editor_on_windows(tmp_path):
    (tmp_path / "s.jsonl").write_bytes(b'\xef\xbb\xbf{"emotion": "sad", "text": "rain"}\r\n')
    assert el.stories(tmp_path / "s.jsonl") == [el.Story("sad", "rain")]


@pytest.fixture(scope="module")
def saved(tiny_vectors, tmp_path_factory):
    """Path, tensors and metadata of a vector file and of the evidence beside it."""
    path = tiny_vectors.save(tmp_path_factory.mktemp("saved") / "it.safetensors")
    found = {}
    for file in (path, path.with_suffix(".evidence.safetensors")):
        with safe_open(file, "numpy") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            found[file] = tensors, json.loads(content.metadata()["emolab"])
    return path, found


@settings(many, max_examples=150)
@given(data=st.data())
def test_metadata_of_any_kind_are_refused_or_usable(tiny, saved, data):
    path, found = saved
    file = data.draw(st.sampled_from(list(found)))
    tensors, head = found[file]
    key = data.draw(st.sampled_from(list(head)))
    value = data.draw(anything | st.lists(st.integers(0, 4), min_size=4, max_size=4))
    try:
        save_file(tensors, file, metadata={"emolab": json.dumps(head | {key: value})})
        vectors = el.load_vectors(path)
        assert all(type(name) is str for name in vectors.emotions) and len({*vectors.emotions}) == len(vectors)
        assert all(type(layer) is int for layer in vectors.layers) and vectors.row() >= 0
        refused(vectors.check, tiny)
        refused(vectors.quality)
    except el.EmolabError as error:
        assert str(file.name) in str(error)
    finally:
        save_file(tensors, file, metadata={"emolab": json.dumps(head)})


HOSTILE = Claim('<script>alert("a|b")</script>', "reading", "' onload='x", "${x} $$ \x00", value=0.9, low=0.8, high=1)


@settings(many, max_examples=150)
@given(key=st.sampled_from([*vars(HOSTILE), "model"]), value=anything)
def test_a_card_of_any_kind_is_refused_or_shown(tmp_path_factory, key, value):
    content = json.loads(Card((HOSTILE,), {"model": "it"}).json())
    place = content["info"] if key == "model" else content["claims"][0]
    place[key] = value
    path = tmp_path_factory.getbasetemp() / "card.json"
    path.write_text(json.dumps(content))
    if not refused(el.load_card, path):
        found = el.load_card(path)
        assert "<script" not in found.html() + found._repr_html_()
        assert repr(el.load_card(found.save(path.with_name("cards")).with_suffix(".json"))) == repr(found)
        assert found.markdown() and len(found.table()) == 1


# --- texts and models --------------------------------------------------------------------------------------------


@settings(many, max_examples=150)
@given(text=st.text(characters | st.sampled_from("\u200b\u202e\u0301\ud83d\ude00\ufeff\x00 \r\n"), max_size=40))
def test_texts_of_any_kind_are_read_whole_or_refused(subject, text):
    broken = any("\ud800" <= character <= "\udfff" for character in text)
    if refused(subject.encode, text):
        dropped = not broken and not subject.tokenizer(text)["input_ids"]  # control characters
        assert broken or dropped or not text.strip()
        assert refused(subject.generate, text) and (refused(subject.spans, text) or not broken)
    else:
        spans = subject.spans(text)
        assert "".join(text[a:b] for a, b in spans) == text and len(spans) == len(subject.encode(text))


@pytest.mark.parametrize("what", [float("nan"), float("inf"), 1e38], ids=str)
def test_a_model_whose_numbers_are_none_is_refused_by_all_that_runs_it(tiny_vectors, cache, what):
    subject, text = tiny_subject(), tiny_text(1)
    subject.__dict__["weight_sample"] = tiny_vectors.info["weights"]
    with torch.no_grad():
        subject.model.get_input_embeddings().weight.mul_(what)
    for run in (
        lambda: el.read(subject, text),
        lambda: tiny_vectors.readout(subject, text),
        lambda: el.extract(subject, tiny_stories(), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False),
        lambda: el.prompt_lab(subject, tiny_vectors, text, emotions=["calm"]),
    ):
        assert refused(run)
    with torch.no_grad():
        subject.model.get_output_embeddings().weight.fill_(what if what == 1e38 else float("nan"))
        subject.model.get_output_embeddings().weight[:, 0] = float("nan")
    for run in (
        lambda: subject.generate(text, 2),
        lambda: subject.generate(text, 2, seed=1),
        lambda: likelihood.token_losses(subject, [text]),
        lambda: likelihood.continuation_logprobs(subject, [text], [" dog"]),
        lambda: likelihood.next_token_logprobs(subject, [text]),
        lambda: el.steering_desk(subject, tiny_vectors, {"calm": 0.1}, text, max_tokens=2),
    ):
        assert refused(run)


# --- interrupted, killed, damaged --------------------------------------------------------------------------------

STORIES = [el.Story(emotion, tiny_text(10 * i + j, 24), f"p{j}") for i, emotion in enumerate("abc") for j in range(8)]


@pytest.fixture
def work(tiny, cache, tmp_path, monkeypatch):
    """Extracts from a few stories, with many checkpoints, and saves; returns the vectors' bytes."""
    monkeypatch.setattr(activations, "token_budget", lambda subject: 64)
    monkeypatch.setattr(corpus, "CHUNK", 6)
    monkeypatch.setattr(corpus, "SAVE_EVERY", 0)

    def run() -> bytes:
        made = el.extract(tiny, STORIES, held_out=el.HeldOut(), neutral=NEUTRAL[:4], progress=False)
        return made.save(tmp_path / "it.safetensors").read_bytes()

    return run


def test_stopped_at_any_moment_it_keeps_the_old_file_and_goes_on(work, tiny, cache, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    wanted, stopped = work(), 0
    hooks = [len(block._forward_hooks) for block in tiny.blocks]
    usual = signal.signal(signal.SIGALRM, stop)
    try:
        for moment in np.linspace(0.005, 0.25, 16):
            try:
                signal.setitimer(signal.ITIMER_REAL, moment)
                work()
            except KeyboardInterrupt:
                stopped += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert (tmp_path / "it.safetensors").read_bytes() == wanted
            assert [len(block._forward_hooks) for block in tiny.blocks] == hooks
    finally:
        signal.signal(signal.SIGALRM, usual)
    assert stopped and work() == wanted
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "it.safetensors", "it.evidence.safetensors"}
    assert all(path.suffix == ".lock" for path in (cache / "extractions").iterdir())


@pytest.mark.parametrize("damage", ["gone", "cut", "noise"])
@pytest.mark.parametrize("name", ["plan", "means", "done", "sums.safetensors"])
def test_unfinished_work_that_is_damaged_is_done_again(work, cache, tmp_path, monkeypatch, name, damage):
    if (name, damage) == ("means", "noise"):
        pytest.skip("nothing tells such numbers from others")
    wanted, forward, calls = work(), activations.forward, []

    def stopping(*given):
        calls.append(given)
        if len(calls) > 5:
            raise KeyboardInterrupt
        forward(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(activations, "forward", stopping)
        work()
    found = list(cache.rglob(name))
    assert found
    for path in found:
        whole = path.read_bytes()
        path.write_bytes({"cut": whole[: len(whole) // 2], "noise": bytes([7] * len(whole)), "gone": b""}[damage])
        if damage == "gone":
            path.unlink()
    assert work() == wanted


@pytest.mark.parametrize("kept", ["", "[]", "[1]", "null", DEEP, '[{"claim": 1}]'], ids=lambda kept: kept[:9])
def test_a_chapter_kept_in_a_broken_file_is_read_again(tmp_path, monkeypatch, kept):
    found = Claim("it holds", "reading", "", "")
    monkeypatch.setattr(card, "CHAPTERS", {"one": lambda *_: [found]})
    (tmp_path / "one.json").write_text(kept)
    assert repr(card._chapter(tmp_path / "one.json", "one", None, None, 0)) == repr([found])


@pytest.mark.parametrize("place", ["/dev/null", "/proc/none", "x" * 300])
def test_a_cache_that_can_not_be_used_says_what_to_do(tiny, tiny_vectors, monkeypatch, place):
    monkeypatch.setenv("EMOLAB_CACHE", place)
    with pytest.raises(el.EmolabError, match="EMOLAB_CACHE"):
        el.extract(tiny, STORIES, held_out=el.HeldOut(), neutral=NEUTRAL[:4], progress=False)
    with pytest.raises(el.EmolabError, match="EMOLAB_CACHE"):
        el.replication_card(tiny, tiny_vectors, only=[], progress=False)
    with pytest.raises(el.EmolabError, match="EMOLAB_CACHE"):
        el.load()


def test_one_process_at_a_time(cache):
    with (
        workshop("kind", "key", "this"),
        pytest.raises(el.EmolabError, match="is working on"),
        workshop("kind", "key", ""),
    ):
        pass


# --- saved pages -------------------------------------------------------------------------------------------------

POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"\s+content="default-src \'none\';([^"]*)">')


@pytest.mark.parametrize("name", sorted(path.name for path in (Path(files.__file__).parent / "static").glob("*.html")))
def test_every_page_forbids_all_that_comes_from_elsewhere(name):
    page = (Path(files.__file__).parent / "static" / name).read_text(encoding="utf-8")
    allowed = POLICY.search(page).group(1)
    assert not re.search(r"https?:|\*|'self'|unsafe-eval", allowed)
    assert not re.search(r"(src|href|action)\s*=|url\(|@import|fetch\(|XMLHttp|WebSocket", page.split("$")[0])


def test_twins_hold_no_script_and_ask_for_nothing(tiny, tiny_vectors, tmp_path):
    hostile = 'the dog </script><img src="https://x.org/a"> ran'
    page = el.prompt_lab(tiny, tiny_vectors, hostile, emotions=["calm"]).freeze().html
    page += el.steering_desk(tiny, tiny_vectors, {"calm": 0.1}, hostile, max_tokens=2).freeze().html
    assert not re.search(r"<(script|link|iframe|object|embed|form|base)\b|\son\w+=|javascript:", page)
    assert all(source.startswith("data:") for source in re.findall(r'<[^>]*\b(?:src|href)="([^"]*)"', page))
