"""Vector files: what goes in comes out, whole or not at all, and what isn't right is refused."""

import errno
import json
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import full_disk, tiny_model, tiny_subject, tiny_tokenizer
from gguf import GGUFReader
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import emolab as el
from emolab import files
from emolab.files import TENSORS, layer_activations, save

each_tensor = pytest.mark.parametrize("name", TENSORS)


@pytest.fixture
def path(tiny_vectors, tmp_path) -> Path:
    """A vector file with its evidence beside it."""
    return tiny_vectors.save(tmp_path / "it.safetensors")


@pytest.fixture(scope="module")
def scratch(tiny_vectors, tmp_path_factory) -> Path:
    """The same without evidence, for properties that are tried many times."""
    bare = replace(tiny_vectors, evidence=None)
    return bare.save(tmp_path_factory.mktemp("files") / "it.safetensors")


def content(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["emolab"])  # noqa: SIM118


def rewrite(path: Path, tensors=(), **head) -> None:
    """The file with some tensors and some of its metadata replaced, by safetensors' own means."""
    old_tensors, old_head = content(path)
    save_file(old_tensors | dict(tensors), path, metadata={"emolab": json.dumps(old_head | head)})


def assert_same(found: el.EmotionVectors, expected: el.EmotionVectors, apart_from=()) -> None:
    for name in set(TENSORS) - set(apart_from):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for name in ("emotions", "layers", "chosen_layer", "metric"):
        assert getattr(found, name) == getattr(expected, name)


def in_folder(path: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in path.parent.iterdir()}


# --- there and back ----------------------------------------------------------------------------------------------


def test_round_trip(tiny_vectors, path):
    found = el.load_vectors(path)
    assert_same(found, tiny_vectors)
    assert found.info == tiny_vectors.info
    assert found.vectors.dtype == found.probes.dtype == np.float32
    assert sorted(in_folder(path)) == ["it.evidence.safetensors", "it.safetensors"]


def test_round_trip_of_the_evidence(tiny_vectors, path):
    found, expected = el.load_vectors(path).evidence, tiny_vectors.evidence
    assert (found.layer, found.choose, found.test) == (expected.layer, None, None)
    assert found.lexical.keys() == expected.lexical.keys() == {"train"}
    np.testing.assert_array_equal(found.lexical["train"], expected.lexical["train"])
    np.testing.assert_array_equal(found.train.emotions, expected.train.emotions)
    np.testing.assert_array_equal(found.train.parts, expected.train.parts)
    for one, other in ((found.train.means, expected.train.means), (found.neutral, expected.neutral)):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-3 * np.abs(other).max())


@each_tensor
def test_arrays_in_another_memory_order_survive(tiny_vectors, tmp_path, name):
    odd = replace(tiny_vectors, **{name: np.asfortranarray(getattr(tiny_vectors, name)[::-1])[::-1]})
    assert_same(el.load_vectors(odd.save(tmp_path / "odd.safetensors")), tiny_vectors)


def test_compact_is_smaller_and_nearly_the_same(tiny_vectors, tmp_path, path):
    compact = save(tiny_vectors, tmp_path / "compact.safetensors", compact=True)
    assert compact.stat().st_size < path.stat().st_size
    halved, found = ("probes", "neutral_components"), el.load_vectors(compact)
    assert_same(found, tiny_vectors, apart_from=halved)
    for name in halved:
        exact = getattr(tiny_vectors, name)
        assert getattr(found, name).dtype == np.float32
        np.testing.assert_allclose(getattr(found, name), exact, atol=2e-3 * np.abs(exact).max())


@settings(deadline=None, max_examples=30)
@given(names=st.lists(st.text(), min_size=3, max_size=3, unique=True))
def test_any_name_survives(tiny_vectors, scratch, names):
    named = replace(tiny_vectors, emotions=tuple(names), evidence=None)
    assert el.load_vectors(named.save(scratch.with_name("named.safetensors"))).emotions == tuple(names)


def test_a_selection_takes_the_evidence_of_the_whole_away(tiny_vectors, path):
    tiny_vectors["calm"].save(path)
    assert el.load_vectors(path).evidence is None


def test_shipped_vectors_by_name(shipped):
    assert shipped.info["model"] == el.DEFAULT
    assert (shipped.emotions, shipped.vectors.shape[-1]) == (el.emotions(), 576)
    np.testing.assert_allclose(shipped.vectors.mean(0), 0, atol=1e-4 * np.abs(shipped.vectors).max())


# --- whole or not at all -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [1, 2], ids=["vectors", "evidence"])
@pytest.mark.parametrize("failure", [OSError(errno.EIO, "I/O error"), KeyboardInterrupt(), "full disk"], ids=repr)
def test_a_failure_while_writing_leaves_the_old_files(tiny_vectors, path, monkeypatch, file, failure):
    before, calls = in_folder(path), []

    def failing(tensors, target, metadata):
        calls.append(target)
        full = failure == "full disk" and len(calls) == file
        with full_disk() if full else nullcontext():
            save_file(tensors, target, metadata)
        if len(calls) == file:
            raise failure

    monkeypatch.setattr(files, "save_file", failing)
    changed = replace(tiny_vectors, vectors=tiny_vectors.vectors + 1)
    with pytest.raises(KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else el.EmolabError):
        changed.save(path)
    assert in_folder(path) == before


def test_who_is_reading_the_old_file_goes_on_reading_it(tiny_vectors, path):
    old = path.read_bytes()
    with path.open("rb") as reader:
        replace(tiny_vectors, vectors=tiny_vectors.vectors + 1).save(path)
        assert reader.read() == old != path.read_bytes()


def test_a_folder_that_cannot_be_written(tiny_vectors, path):
    with pytest.raises(el.EmolabError, match="can't write"):
        tiny_vectors.save(path / "inside.safetensors")


@pytest.mark.parametrize("suffix", [".npz", ".gguf"])
def test_export_on_a_full_disk(tiny_vectors, tmp_path, suffix):
    with full_disk(100), pytest.raises(el.EmolabError, match="can't write"):
        el.export(tiny_vectors, tmp_path / f"calm{suffix}", emotion="calm")
    assert list(tmp_path.iterdir()) == []


# --- what is refused ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_ends(scratch, share):
    whole, cut = scratch.read_bytes(), scratch.with_name("cut.safetensors")
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(el.EmolabError, match=r"cut\.safetensors is truncated or damaged"):
        el.load_vectors(cut)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_wrong_byte_in_the_header_is_our_error_or_none(scratch, data):
    damaged = bytearray(scratch.read_bytes())
    place = data.draw(st.integers(0, 8 + int.from_bytes(damaged[:8], "little") - 1))
    damaged[place] = data.draw(st.integers(0, 255))
    file = scratch.with_name("damaged.safetensors")
    file.write_bytes(damaged)
    try:
        el.load_vectors(file)
    except el.EmolabError as error:
        assert str(file) in str(error)


@each_tensor
def test_shapes_that_do_not_fit_are_refused(tiny_vectors, path, name):
    value = getattr(tiny_vectors, name)
    rewrite(path, {name: np.concatenate([value, value])})
    with pytest.raises(el.EmolabError, match=r"is damaged: .* has shape"):
        el.load_vectors(path)


@each_tensor
def test_a_file_that_lacks_something_is_refused(path, name):
    tensors, head = content(path)
    tensors.pop(name)
    save_file(tensors, path, metadata={"emolab": json.dumps(head)})
    with pytest.raises(el.EmolabError, match=rf"not a complete vector file \(missing: {name}"):
        el.load_vectors(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", sorted(set(TENSORS) - {"counts"}))
def test_values_that_are_not_finite_are_refused(tiny_vectors, path, name, bad):
    value = getattr(tiny_vectors, name).copy()
    value.flat[-1] = bad
    rewrite(path, {name: value})
    with pytest.raises(el.EmolabError, match="not finite"):
        el.load_vectors(path)


@pytest.mark.parametrize(
    "head, message",
    [
        ({"format": 2}, "newer emolab: upgrade"),
        ({"chosen_layer": 9}, "damaged: it names layer 9"),
        ({"metric": "guess"}, "damaged: .*'guess'"),
    ],
    ids=str,
)
def test_metadata_that_do_not_fit_are_refused(path, head, message):
    rewrite(path, **head)
    with pytest.raises(el.EmolabError, match=message):
        el.load_vectors(path)


@pytest.mark.parametrize("metadata", [None, {"other": "1"}, {"emolab": "[]"}], ids=str)
def test_safetensors_by_others_are_refused(tmp_path, metadata):
    save_file({"vectors": np.ones(3)}, tmp_path / "x.safetensors", metadata=metadata)
    with pytest.raises(el.EmolabError, match="emolab didn't write it"):
        el.load_vectors(tmp_path / "x.safetensors")


def test_what_is_no_vector_file(tmp_path, path, tiny_vectors):
    (tmp_path / "notes.safetensors").write_text("these are not the vectors you are looking for")
    for name, message in {
        "notes.safetensors": "truncated or damaged",
        "missing.safetensors": "there is no vector file",
        ".": "there is no vector file",
        "it.evidence.safetensors": "not a complete vector file",
    }.items():
        with pytest.raises(el.EmolabError, match=message):
            el.load_vectors(tmp_path / name)
    with pytest.raises(el.EmolabError, match=r"ends in \.safetensors"):
        tiny_vectors.save(tmp_path / "vectors.npy")


def test_evidence_of_another_model_is_refused(tiny_vectors, path):
    other = replace(tiny_vectors, info=tiny_vectors.info | {"weights": tiny_subject(seed=1).weight_sample})
    save(other, path.with_name("other.safetensors"))
    path.with_name("other.evidence.safetensors").replace(path.with_name("it.evidence.safetensors"))
    with pytest.raises(el.EmolabError, match="belongs to another model"):
        el.load_vectors(path)


def test_a_vector_file_in_the_place_of_evidence_is_refused(path):
    path.with_name("it.evidence.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(el.EmolabError, match=r"it\.evidence\.safetensors"):
        el.load_vectors(path)


# --- one model, one set of vectors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [{"seed": 1}, {"architecture": "qwen2"}, {"num_hidden_layers": 5}, {"hidden_size": 64}],
    ids=str,
)
def test_vectors_of_another_model_are_refused(tiny_vectors, other):
    stranger = tiny_subject(**other)
    for use in (tiny_vectors.check, lambda subject: tiny_vectors.readout(subject, "the dog ran")):
        with pytest.raises(el.EmolabError, match=r"made for LlamaForCausalLM \(4 layers, d_model 32\), not for"):
            use(stranger)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_vectors_fit_their_model_in_any_dtype(path, dtype):
    el.load_vectors(path).check(el.load((tiny_model().to(dtype), tiny_tokenizer())))


def test_unknown_emotions(tiny_vectors, tmp_path):
    for use in (
        tiny_vectors.__getitem__,
        tiny_vectors.nearest,
        lambda name: tiny_vectors[["calm", name]],
        lambda name: layer_activations(tiny_vectors, name),
        lambda name: el.export(tiny_vectors, tmp_path / "x.gguf", emotion=name),
    ):
        with pytest.raises(el.EmolabError, match="unknown emotion 'afrayd': did you mean 'afraid'"):
            use("afrayd")


# --- for other tools ---------------------------------------------------------------------------------------------


def test_npz(tiny_vectors, tmp_path):
    with np.load(el.export(tiny_vectors, tmp_path / "all.npz"), allow_pickle=False) as found:
        np.testing.assert_array_equal(found["vectors"], tiny_vectors.vectors)
        assert tuple(found["emotions"]) == tiny_vectors.emotions
        assert tuple(found["layers"]) == tiny_vectors.layers


def test_gguf_control_vector(tiny_vectors, tmp_path):
    reader = GGUFReader(el.export(tiny_vectors, tmp_path / "calm.gguf", emotion="calm"))
    assert reader.get_field("general.architecture").contents() == "controlvector"
    assert reader.get_field("controlvector.model_hint").contents() == "llama"
    assert reader.get_field("controlvector.layer_count").contents() == 4
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert sorted(found) == ["direction.1", "direction.2", "direction.3"]  # of layers 2, 3, 4
    for block, layer in ((1, 2), (2, 3), (3, 4)):
        direction, row = found[f"direction.{block}"], tiny_vectors.row(layer)
        vector = tiny_vectors["calm"].vectors[0, row]
        assert np.linalg.norm(direction) == pytest.approx(tiny_vectors.residual_norm[row], rel=1e-5)
        assert direction @ vector == pytest.approx(np.linalg.norm(direction) * np.linalg.norm(vector), rel=1e-5)


def test_layer_activations_count_blocks_from_0(tiny_vectors):
    found = layer_activations(tiny_vectors, "calm")
    assert list(found) == [0, 1, 2, 3]
    for block, value in found.items():
        np.testing.assert_array_equal(value.numpy(), tiny_vectors["calm"].vectors[0, tiny_vectors.row(block + 1)])


@pytest.mark.parametrize(
    "name, emotion, message", [("x.pt", "calm", "unknown export format"), ("x.gguf", None, "one emotion: name it")]
)
def test_exports_that_there_are_not(tiny_vectors, tmp_path, name, emotion, message):
    with pytest.raises(el.EmolabError, match=message):
        el.export(tiny_vectors, tmp_path / name, emotion)
