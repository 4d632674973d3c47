"""The monitor: thresholds that keep what they promise, the same scores read and live, and logs that survive."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import NEUTRAL, save_tiny, tiny_model, tiny_stories, tiny_subject, tiny_text, tiny_tokenizer

import emolab as el
from emolab import cli
from emolab.readout import readout
from emolab.steering import steer
from emolab.watching.log import read_log
from emolab.watching.scores import CLIP, gauge, lay_out, smoothed
from emolab.watching.thresholds import as_chat, conformal, exact_interval, is_test, load_thresholds

TEXT = "the dog ran to the bright door and she"
MANY = [tiny_text(1000 + seed, words=30) for seed in range(300)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EMOLAB_CACHE", str(tmp_path_factory.getbasetemp() / "watch-cache"))


@pytest.fixture
def watch(tiny, tiny_vectors) -> el.Watch:
    return el.Watch(tiny, tiny_vectors, ["calm", "glad"], false_alarm=0.2, neutral=NEUTRAL)


@pytest.fixture
def alarmed(tiny, tiny_vectors, watch) -> el.Watch:
    """A watch with thresholds so low that something is always going on."""
    low = replace(watch.thresholds(), alarm={"calm": 0.05, "glad": 0.05})
    return el.Watch(tiny, tiny_vectors, thresholds=low)


def chat_subject() -> el.Subject:
    return el.load((tiny_model(max_position_embeddings=128), tiny_tokenizer(chat=True)))


# --- scores ------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_readout_and_the_mean_looks_back_only(tiny, tiny_vectors, watch):
    seen = watch.read(TEXT)
    expected = readout(tiny, tiny_vectors, TEXT).scores(["calm", "glad"]).to_numpy()
    np.testing.assert_allclose(seen.scores, expected, atol=1e-4)
    np.testing.assert_allclose(seen.means[1:4, 0], np.cumsum(expected[1:4, 0]) / watch.window, atol=1e-4)
    longer = watch.read(TEXT + " sat and laughed")
    np.testing.assert_allclose(longer.means[: len(seen.means)], seen.means, atol=1e-4)
    assert np.isnan(seen.means[0]).all() and seen.tokens == readout(tiny, tiny_vectors, TEXT).tokens


def test_token_by_token_is_the_same_as_all_at_once(watch, tiny):
    laid = lay_out(tiny, NEUTRAL[0])
    seen = watch.read(NEUTRAL[0])
    bulk = smoothed(seen.scores, [turn.tokens for turn in laid.turns], watch.window)
    np.testing.assert_allclose(seen.means, bulk, atol=1e-9)


def test_a_massive_activation_does_not_drown_its_neighbours(tiny_vectors):
    used = gauge(tiny_vectors, ["calm"])
    hidden = torch.from_numpy(1e6 * np.ones((1, 32), np.float32))
    assert abs(used.scores(hidden)).max() == CLIP


# --- thresholds --------------------------------------------------------------------------------------------------


def test_thresholds_keep_the_rate_on_texts_that_set_none(tiny, tiny_vectors):
    fresh = [tiny_text(5000 + seed, words=30) for seed in range(400)]
    watch = el.Watch(tiny, tiny_vectors, ["calm", "glad"], false_alarm=0.1, neutral=MANY)
    own = watch.thresholds()
    assert own.texts + own.test_texts == 300 and 170 < own.texts < 230
    for name in watch.emotions:
        alarms = np.mean([any(a.emotion == name for a in watch.read(text).alarms) for text in fresh])
        assert 0.04 < alarms < 0.17
        low, high = exact_interval(own.test_alarms[name], own.test_texts)
        assert low < 0.1 and high > 0.05 and 0.05 < own.test_tokens[name] < 0.15
    table = watch.false_alarms()
    assert list(table.index) == ["calm", "glad"]
    np.testing.assert_allclose(table["per text"] * table["of texts"], table["false alarms"])
    assert own.expected(own.typical * 2) == pytest.approx(1 - 0.9**2)


def test_conformal_quantile_counts_the_new_text_too():
    peaks = np.arange(19.0)
    assert conformal(peaks, 0.05) == 18 and conformal(peaks, 0.5) == 9
    with pytest.raises(el.EmolabError, match=r"19 neutral texts can't calibrate.*at least 0.05"):
        conformal(peaks, 0.04)
    rng = np.random.default_rng(0)
    passed = [rng.normal() > conformal(rng.normal(size=19), 0.1) for _ in range(4000)]
    assert np.mean(passed) == pytest.approx(0.1, abs=0.02)


def test_neutral_texts_are_split_once_and_for_all():
    split = [is_test(text) for text in el.neutral()]
    assert 0.25 < np.mean(split) < 0.42 and split == [is_test(text) for text in el.neutral()]
    halves = as_chat("One sentence. Another one. The last of them.")
    assert [half["role"] for half in halves] == ["user", "assistant"]
    assert " ".join(half["content"] for half in halves) == "One sentence. Another one. The last of them."


def test_shipped_neutral_scores_are_used_and_nothing_is_read(subject, shipped, monkeypatch):
    monkeypatch.setattr("emolab.watching.thresholds.read_scores", lambda *_: pytest.fail("the model was run"))
    watch = el.Watch(subject, shipped, ["desperate", "angry"])
    for kind in ("plain", "chat"):
        table = watch.false_alarms(kind)
        assert (table["low"] <= 0.01).all() and (table["high"] >= 0.01).all() and (table["alarm threshold"] > 1).all()


def test_thresholds_survive_a_file_and_refuse_other_models(watch, tiny, tiny_vectors, tmp_path):
    path = watch.save(tmp_path / "thresholds.json")
    again = el.Watch(tiny, tiny_vectors, thresholds=path)
    assert again.emotions == ("calm", "glad") and again.thresholds() == watch.thresholds()
    assert el.Watch(tiny, tiny_vectors, "glad", thresholds=path).thresholds().emotions == ("glad",)
    with pytest.raises(el.EmolabError, match="unknown emotion 'afraid'"):
        el.Watch(tiny, tiny_vectors, "afraid", thresholds=path)
    other = tiny_subject(seed=3)
    strangers = replace(tiny_vectors, info=tiny_vectors.info | {"weights": other.weight_sample})
    with pytest.raises(el.EmolabError, match=r"made for .*leave them out"):
        el.Watch(other, strangers, thresholds=path)
    turned = replace(tiny_vectors, probes=-tiny_vectors.probes, vectors=-tiny_vectors.vectors)
    with pytest.raises(el.EmolabError, match="other vectors"):
        el.Watch(tiny, turned, thresholds=path)
    for broken in ("", "[1]", "{}", '[{"kind": "plain"}]'):
        path.write_text(broken)
        with pytest.raises(el.EmolabError, match="holds no thresholds"):
            load_thresholds(path)


@pytest.mark.parametrize("wrong, said", [
    ({"emotions": ["clam"]}, "unknown emotion 'clam': did you mean 'calm'"), ({"emotions": []}, "say what to watch"),
    ({"false_alarm": 0}, "between 0 and 1"), ({"false_alarm": 0.001}, "can't calibrate"), ({"layer": 9}, "layer 9"),
    ({"window": 0}, "at least one token"), ({"neutral": ["the dog ran"]}, "too few or too short"),
])  # fmt: skip
def test_what_can_not_be_watched_is_said(tiny, tiny_vectors, wrong, said):
    given = {"emotions": ["calm"], "neutral": NEUTRAL, "false_alarm": 0.2} | wrong
    with pytest.raises(el.EmolabError, match=said):
        el.Watch(tiny, tiny_vectors, given.pop("emotions"), **given)
    with pytest.raises(el.EmolabError, match="made for"):
        el.Watch(tiny_subject(seed=9), tiny_vectors, ["calm"], neutral=NEUTRAL)


def test_a_concept_of_ones_own_is_watched_like_an_emotion(tiny, tiny_vectors):
    rows = {"vectors": 0, "probes": 0, "counts": 0, "neutral_sd": 1}
    wider = {key: np.concatenate([getattr(tiny_vectors, key)] * 2, axis) for key, axis in rows.items()}
    own = replace(tiny_vectors, emotions=(*tiny_vectors.emotions, "x", "seasick", "z"), **wider)
    seen = el.Watch(tiny, own, ["seasick", "calm"], false_alarm=0.2, neutral=NEUTRAL).read(TEXT)
    np.testing.assert_allclose(seen.scores[:, 0], seen.scores[:, 1], atol=1e-5)  # a copy of calm


# --- texts and chats ---------------------------------------------------------------------------------------------


def test_alarms_are_where_the_mean_is_high(alarmed):
    for text in NEUTRAL[:5]:
        seen = alarmed.read(text)
        for column, name in enumerate(seen.emotions):
            inside = seen.by_token()[name, "alarm"].to_numpy()
            high, means = seen.thresholds.alarm[name], seen.means[:, column]
            assert inside[means > high].all() and not inside[1:][means[1:] <= high / 2].any()
        for alarm in seen.alarms:
            column = seen.emotions.index(alarm.emotion)
            own = seen.means[alarm.start : alarm.end, column]
            assert own[0] > alarm.threshold and alarm.peak == own.max() == seen.means[alarm.at, column]
    assert len(seen.table()) == len(seen.alarms) > 0 and set(seen.table().emotion) <= {"calm", "glad"}
    assert "alarm" in seen.verdict() and "0.2" in seen.verdict()


def test_a_chat_is_watched_turn_by_turn(tiny_vectors):
    subject = chat_subject()
    watch = el.Watch(subject, tiny_vectors, ["calm", "glad"], false_alarm=0.2, neutral=NEUTRAL)
    chat = [{"role": "user", "content": "the dog ran"}, {"role": "assistant", "content": "she sat and laughed"}]
    seen = watch.read(chat)
    assert [s for s in seen.speakers if s] == ["user"] * 3 + ["assistant"] * 4
    assert seen.thresholds.kind == "chat" and watch.read(TEXT).thresholds.kind == "plain"
    start = seen.speakers.index("assistant")
    np.testing.assert_allclose(seen.means[start], seen.scores[start] / watch.window)  # nothing of the user's is left
    low = replace(seen.thresholds, alarm={"calm": -0.5, "glad": -0.5})
    table = el.Watch(subject, tiny_vectors, thresholds=low).read(chat).table()
    assert set(table.speaker) == {"user", "assistant"} and (table.end - table.start <= 4).all()


def test_empty_and_malformed_texts_are_refused(watch):
    for nothing, said in (("", "empty"), ("  ", "empty"), ([], "a chat is a list"), ([{"role": "user"}], "a chat is")):
        with pytest.raises(el.EmolabError, match=said):
            watch.read(nothing)
    with pytest.raises(el.EmolabError, match="reads at most"):
        watch.read(" ".join(["dog"] * 100))


def test_what_was_seen_is_shown_and_escaped(alarmed):
    nasty = '<script>alert(1)</script> "><img src=x onerror=alert(1)> the dog ran to the bright door'
    page = alarmed.read(nasty)._repr_html_()
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed(page)
    assert set(tags) <= {"div", "p", "span", "details", "summary", "blockquote", "b"} and "alert" not in tags
    figure = alarmed.read(NEUTRAL[0]).figure()
    assert len(figure.axes[0].lines) >= 4 and figure.axes[0].get_ylabel()


# --- live --------------------------------------------------------------------------------------------------------


def written(subject, live, text=TEXT, tokens=12, **options):
    with live:
        return subject.generate(text, tokens, stopping_criteria=[live], **options)


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"seed": 3}, {"cache_implementation": "static"}])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_live_sees_what_reading_the_finished_text_sees(tiny, tiny_vectors, architecture, options):
    subject = tiny if architecture == "llama" else tiny_subject(architecture)
    if architecture == "gpt2" and "cache_implementation" in options:
        pytest.skip("gpt2 has no static cache")
    vectors = replace(tiny_vectors, info=tiny_vectors.info | {"weights": subject.weight_sample})
    watch = el.Watch(subject, vectors, ["calm", "glad"], false_alarm=0.2, neutral=NEUTRAL)
    live = watch.live()
    prompt = len(subject.encode(TEXT))
    with live:
        rows = torch.tensor([subject.encode(TEXT)])
        how = {"do_sample": "seed" in options, "pad_token_id": 0} | options
        how.pop("seed", None)
        torch.manual_seed(0)
        ids = subject.model.generate(input_ids=rows, attention_mask=torch.ones_like(rows), max_new_tokens=12,
                                     stopping_criteria=[live], **how)[0].tolist()  # fmt: skip
    seen = live.result()
    taken = {}
    handle = subject.blocks[watch.layer - 1].register_forward_hook(
        lambda module, args, output: taken.update(hidden=output[0] if isinstance(output, tuple) else output)
    )
    with torch.no_grad():
        subject.decoder(input_ids=torch.tensor([ids]), use_cache=False)
    handle.remove()
    expected = watch.gauge.scores(taken["hidden"][0])
    assert len(seen.tokens) == len(ids) - 1 and seen.speakers[prompt - 1 : prompt + 1] == ("prompt", "written")
    scored = [i for i in range(1, len(ids) - 1) if seen.speakers[i]]
    np.testing.assert_allclose(seen.scores[scored], expected[scored], atol=1e-4)


def test_alarms_are_called_as_they_come_and_stop_stops(tiny, alarmed):
    called, rows = [], []
    whole = written(tiny, live := alarmed.live(on_alarm=called.append, on_token=rows.append), tokens=20)
    seen = live.result()
    assert [(a.emotion, a.start) for a in called] == [(a.emotion, a.start) for a in seen.alarms] and called
    assert [row["token"] for row in rows] == list(seen.tokens) and len(rows) == len(tiny.encode(TEXT)) + 19
    high = replace(alarmed.thresholds(), alarm={"calm": 1e3, "glad": 1e3})
    calm = el.Watch(tiny, alarmed.vectors, thresholds=high)
    assert written(tiny, calm.live(stop=True), tokens=20) == whole and tiny.generate(TEXT, 20) == whole
    stopped = written(tiny, live := alarmed.live(stop=True), tokens=20)
    assert whole.startswith(stopped) and len(live.result().alarms) >= 1 and len(stopped) < len(whole)


def test_a_push_is_seen(tiny, tiny_vectors, watch):
    row = tiny_vectors.row()
    push = tiny_vectors.directions()[tiny_vectors.index("calm")]
    push = 2 * push / np.linalg.norm(push)
    written(tiny, plain := watch.live())
    with steer(tiny, tiny_vectors, push, layers=tiny_vectors.layers[row], positions="generated"):
        written(tiny, pushed := watch.live())
    n = len(tiny.encode(TEXT))
    np.testing.assert_allclose(pushed.result().scores[1:n], plain.result().scores[1:n], atol=1e-4)
    assert pushed.result().scores[n:, 0].min() > plain.result().scores[n:, 0].max()


def test_a_watched_chat_knows_who_speaks(tiny_vectors):
    subject = chat_subject()
    watch = el.Watch(subject, tiny_vectors, "calm", false_alarm=0.2, neutral=NEUTRAL)
    prompt = subject.chat("the dog ran")
    written(subject, live := watch.live(chat="the dog ran"), prompt)
    said = [s for s in live.result().speakers if s]
    assert said[:3] == ["user"] * 3 and set(said[3:]) == {"assistant"} and live.result().thresholds.kind == "chat"
    with pytest.raises(el.EmolabError, match="not the chat that is watched"):
        written(subject, watch.live(chat="she sat"), prompt)


def test_misuse_is_said_and_nothing_stays_hooked(tiny, watch):
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in tiny.model.modules())  # noqa: E731
    before = hooks()
    with pytest.raises(el.EmolabError, match="generate one by one"), watch.live() as live:
        tiny.generate([TEXT, TEXT], 3, stopping_criteria=[live])
    with pytest.raises(el.EmolabError, match="generate one by one"), watch.live() as live:
        tiny.generate(TEXT, 3, num_beams=2, stopping_criteria=[live])
    with pytest.raises(el.EmolabError, match="was not asked"), watch.live():
        tiny.generate(TEXT, 3)
    with pytest.raises(el.EmolabError, match="follows one generation"), watch.live() as live:
        tiny.generate(TEXT, 3, stopping_criteria=[live])
        tiny.generate(TEXT + " sat", 9, stopping_criteria=[live])
    with pytest.raises(el.EmolabError, match="did not see"):
        tiny.generate(TEXT, 3, stopping_criteria=[watch.live()])
    live = watch.live()
    written(tiny, live)
    with pytest.raises(el.EmolabError, match="make another"):
        written(tiny, live)
    assert hooks() == before


# --- logs --------------------------------------------------------------------------------------------------------


def test_a_log_holds_what_was_seen(tiny, alarmed, tmp_path):
    path = tmp_path / "new" / "watch.jsonl"
    written(tiny, live := alarmed.live(log=path), tokens=20)
    seen, log = live.result(), read_log(path)
    assert log.complete and log.notice == "" and log.thresholds == seen.thresholds
    assert log.text == "".join(seen.tokens) and len(log.rows) == len(seen.tokens)
    np.testing.assert_allclose(log.table()["glad", "mean"], seen.means[:, 1], atol=1e-3)
    alarms = {(a.emotion, a.start): a.end for a in seen.alarms}
    assert {(r.emotion, r.start): r.end for r in log.alarms().itertuples()} == alarms and alarms
    row = json.loads(path.read_text().splitlines()[5])
    assert {"token", "score", "threshold", "span"} <= set(row)
    alarmed.read(TEXT, log=path)
    assert len(read_log(path).rows) == len(tiny.encode(TEXT))


def test_a_stream_that_is_cut_off_leaves_an_intact_log(tiny, alarmed, tmp_path):
    path = tmp_path / "watch.jsonl"

    def fail(row):
        if row["position"] == 12:
            assert len(path.read_text().splitlines()) == 14  # each line is there at once
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tiny, live := alarmed.live(log=path, on_token=fail))
    log = read_log(path)
    assert not log.complete and "cut off after 13 tokens" in log.notice and "cut off" in repr(log)
    assert log.text == "".join(live.result().tokens)
    whole = path.read_text()
    path.write_text(whole[:-20])
    cut = read_log(path)
    assert len(cut.rows) == 12 and "its last line is incomplete and left out" in cut.notice


@pytest.mark.parametrize("spoil, said", [
    (lambda lines: [], "is empty"), (lambda lines: lines[:1][0][:40:], "is empty, or was cut off"),
    (lambda lines: [*lines[:3], "nonsense", *lines[4:]], "line 4 is broken"),
    (lambda lines: [*lines[:3], *lines[4:]], "line 4: this should be token 2"),
    (lambda lines: ['{"a": 1}', *lines[1:]], "is no log"), (lambda lines: [*lines[:-2], lines[-1]], "does not fit"),
])  # fmt: skip
def test_a_log_that_was_tampered_with_is_refused(tiny, alarmed, tmp_path, spoil, said):
    path = tmp_path / "watch.jsonl"
    alarmed.read(TEXT, log=path)
    lines = spoil(path.read_text().splitlines())
    path.write_text(lines if isinstance(lines, str) else "".join(line + "\n" for line in lines))
    with pytest.raises(el.EmolabError, match=said):
        read_log(path)
    with pytest.raises(el.EmolabError, match="there is no log"):
        read_log(tmp_path / "nowhere.jsonl")


def test_a_log_that_can_not_be_written_is_said(alarmed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(el.EmolabError, match="can't write the log"):
        alarmed.read(TEXT, log=tmp_path / "file" / "watch.jsonl")


def test_the_embedded_model_alarms_where_it_should(subject, shipped):
    watch = el.Watch(subject, shipped, ["afraid", "desperate"], false_alarm=0.05)
    chat = [{"role": turn["role"], "content": turn["text"]} for turn in el.prompts("dialogues")[0]["turns"]]
    table = watch.read(chat).table()
    assert "afraid" in set(table.emotion[table.speaker == "user"])
    assert watch.read(el.neutral()[0]).alarms == ()


# --- the command line --------------------------------------------------------------------------------------------


def test_the_command_prints_alarms_and_writes_a_log(tmp_path, monkeypatch, capsys):
    folder, file, log = tmp_path / "tiny", tmp_path / "text.txt", tmp_path / "log.jsonl"
    save_tiny(folder, max_position_embeddings=512)
    monkeypatch.setattr("emolab.data.neutral", lambda: NEUTRAL)
    vectors = el.extract(el.load(folder), tiny_stories(), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)
    vectors.save(tmp_path / "v.safetensors")
    shared = ["--model", folder, "--vectors", tmp_path / "v.safetensors", "--emotion", "calm", "--false-alarm", "0.9"]

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["emolab", "watch", *map(str, words), *map(str, shared)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code or 0, *capsys.readouterr()

    file.write_text(NEUTRAL[1])
    code, out, said = run(file, "--log", log)
    expected = el.Watch(el.load(folder), vectors, "calm", false_alarm=0.9).read(NEUTRAL[1])
    assert code == 0 and len(out.splitlines()) == len(expected.alarms) > 0 and "false" not in out
    assert out.startswith("calm") and expected.words(expected.alarms[0]) in out and "alarm" in said
    assert read_log(log).complete
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=BytesIO(NEUTRAL[1].encode())))
    assert run("-")[1] == out
    for content, options, words in ((b"\xff\xfe", (), "UTF-8"), (b"", (), "empty"), (b"{", ("--chat",), "in JSON")):
        file.write_bytes(content)
        code, out, said = run(file, *options)
        assert code == 1 and words in said and not out and "Traceback" not in said
    code, _, said = run(tmp_path / "nowhere.txt")
    assert code == 1 and "No such file" in said
