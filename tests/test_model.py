"""Loading models, finding their blocks and reading them, against what transformers itself says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, save_tiny, tiny_model, tiny_subject, tiny_text, tiny_tokenizer
from safetensors.torch import load_file, save_file
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import AutoModelForCausalLM

import emolab as el
from emolab.embedded import embedded_folder
from emolab.model import fast_dtype

TEXT = "the dog ran to the bright door and she waited alone in the cold night"

architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny llama as a transformers folder, the same as the fixture `tiny`."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny")


def hidden_states(subject: el.Subject, text: str) -> np.ndarray:
    """transformers' own [layer 0..n, token, d_model]; in the last one the final norm is applied."""
    with torch.no_grad():
        output = subject.model(torch.tensor([subject.encode(text)]), output_hidden_states=True)
    return torch.cat(output.hidden_states).numpy()


def final_norm(subject: el.Subject) -> nn.Module:
    """The one norm that stands beside the blocks."""
    around = next(part for part in subject.model.modules() if any(c is subject.blocks for c in part.children()))
    (norm,) = [child for child in around.children() if "Norm" in type(child).__name__]
    return norm


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def hooks(subject: el.Subject) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in subject.model.modules())


# --- blocks and layers -------------------------------------------------------------------------------------------


@architectures
def test_layer_k_is_the_residual_stream_after_block_k(architecture):
    subject = tiny_subject(architecture)
    assert (subject.n_layers, subject.d_model) == (4, 32)
    truth, found = hidden_states(subject, TEXT), el.read(subject, TEXT, range(5))
    assert np.abs(np.diff(truth, axis=0)).max((1, 2)).min() > 1e-3  # so that a layer off by one would show
    np.testing.assert_allclose(found[:4], truth[:4], atol=1e-5)
    assert not np.allclose(found[4], truth[4], atol=1e-2)
    np.testing.assert_allclose(final_norm(subject)(torch.tensor(found[4])), truth[4], atol=1e-5)


def test_reading_and_generating_leave_no_hooks(tiny):
    before, first = hooks(tiny), el.read(tiny, TEXT)
    tiny.generate(TEXT, max_new_tokens=2)
    assert hooks(tiny) == before
    np.testing.assert_array_equal(el.read(tiny, TEXT), first)


def experts(model: nn.Module) -> None:
    for block in model.model.layers:
        block.experts = nn.ModuleList(nn.Identity() for _ in range(4))


def vision_tower(model: nn.Module) -> None:
    model.vision_tower = nn.ModuleList(nn.Identity() for _ in range(4))


@pytest.mark.parametrize("decoy", [experts, vision_tower])
def test_other_lists_of_the_same_length_are_not_taken_for_blocks(decoy):
    model = tiny_model()
    decoy(model)
    assert el.load((model, tiny_tokenizer())).blocks is model.model.layers


def test_blocks_that_cannot_be_found():
    model = tiny_model()
    model.config.num_hidden_layers = 7
    with pytest.raises(el.EmolabError, match=r"7 decoder blocks of LlamaForCausalLM.*model\.layers \(4\)"):
        el.load((model, tiny_tokenizer()))


# --- where models come from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"device_map": "auto"}], ids=str)
def test_a_folder_is_the_model_that_was_saved(folder, tiny, options):
    subject = el.load(folder, dtype=torch.float32, **options)
    assert subject.name == str(folder)
    assert subject.tokenizer_hash == tiny.tokenizer_hash
    np.testing.assert_allclose(el.read(subject, TEXT), el.read(tiny, TEXT), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, None], ids=str)
def test_dtype_is_ours_to_choose_and_the_fingerprint_does_not_mind(folder, tiny, dtype):
    subject = el.load(folder, dtype=dtype)
    assert {p.dtype for p in subject.model.parameters()} == {dtype or fast_dtype()}
    assert el.read(subject, TEXT).dtype == np.float32
    if dtype != torch.float16:  # it has fewer exponents than bfloat16
        assert (subject.fingerprint, subject.weight_sample) == (tiny.fingerprint, tiny.weight_sample)


@architectures
def test_fingerprint_tells_models_apart(architecture):
    prints = [tiny_subject(architecture, seed).fingerprint for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize(
    "name, message",
    {
        "smollm2-135m-instuct": "did you mean 'smollm2-135m-instruct'",
        "bert": "there are: smollm2-135m-instruct",
        "nobody/no-such-model": "can't load nobody/no-such-model: .*network",
        "/no/such/folder": "/no/such/folder",
        ("model", "tokenizer"): "pair, got .'str', 'str'",
        (nn.Linear(2, 2),): "pair, got .'Linear'",
        (nn.Linear(2, 2), None): "Linear has no transformers config",
    }.items(),
    ids=str,
)
def test_what_cannot_be_loaded(name, message):
    with pytest.raises(el.EmolabError, match=message):
        el.load(name)


def empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def truncated(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def encoder_decoder(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "t5"}')


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def a_block_lacking(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layers.2" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def another_width(folder: Path) -> None:
    change_config(folder, intermediate_size=64)


DAMAGES = [
    empty, truncated, without_weights, broken_config, encoder_decoder, broken_tokenizer, a_block_lacking, another_width
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_is_no_model(tmp_path, damage):
    damage(save_tiny(tmp_path))
    with pytest.raises(el.EmolabError, match="not a causal language model that transformers opens"):
        el.load(tmp_path)


def test_tokenizer_of_another_model():
    with pytest.raises(el.EmolabError, match="don't belong together"):
        el.load((tiny_model(vocab_size=20), tiny_tokenizer()))


def test_code_in_a_model_folder_runs_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, ran = save_tiny(tmp_path / "mystery"), tmp_path / "ran"
    (folder / "mystery.py").write_text(f"open({str(ran)!r}, 'w').close()\nraise ImportError('enough')\n")
    kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
    change_config(folder, model_type="mystery", auto_map=dict.fromkeys(kinds, "mystery.It"))
    with pytest.raises(el.EmolabError, match="trust_remote_code=True"):
        el.load(folder)
    assert not ran.exists()
    with pytest.raises(el.EmolabError, match="enough"):
        el.load(folder, trust_remote_code=True)
    assert ran.exists()


# --- text in, text out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "empty"),
        (" \n\t", "empty"),
        (None, "empty"),
        ([""], "empty"),
        (tiny_text(0, words=65), "65 tokens .* at most 64"),
    ],
    ids=["nothing", "blanks", "None", "list", "long"],
)
def test_texts_that_cannot_be_read(tiny, text, message):
    for use in (tiny.encode, tiny.generate, lambda text: el.read(tiny, text)):
        with pytest.raises(el.EmolabError, match=message):
            use(text)


def test_a_text_as_long_as_the_context_window_can_be_read(tiny):
    assert el.read(tiny, tiny_text(0, words=64)).shape == (4, 64, 32)


def test_chat_template_where_there_is_one(tiny):
    talk = [{"role": "user", "content": "she ran"}, {"role": "assistant", "content": "he sat"}]
    templated = el.load((tiny.model, tiny_tokenizer(chat=True)))
    assert templated.chat("she ran") == "user she ran "
    assert templated.chat(talk) == "user she ran assistant he sat "
    assert tiny.chat("she ran") == "she ran"
    assert tiny.chat(talk) == "she ran\n\nhe sat"


def test_generate_is_greedy(tiny):
    ids = tiny.encode(TEXT)
    for _ in range(6):
        ids.append(int(tiny.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert tiny.generate(TEXT, max_new_tokens=6) == " " + tiny.tokenizer.decode(ids[-6:], skip_special_tokens=True)


# --- the embedded model ------------------------------------------------------------------------------------------


def test_embedded_model_speaks(subject):
    assert (subject.name, subject.n_layers, subject.d_model, subject.max_tokens) == (el.DEFAULT, 30, 576, 8192)
    assert "Paris" in subject.generate("The capital of France is", max_new_tokens=3)
    assert subject.chat("Hello").endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")


def test_embedded_model_is_a_plain_transformers_folder():
    ours = el.load(dtype=torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(embedded_folder(el.DEFAULT))
    assert plain.dtype == torch.float32
    ids = torch.tensor([ours.encode("She opened the letter and read it twice.")])
    with torch.no_grad():
        torch.testing.assert_close(ours.model(ids).logits, plain(ids).logits, rtol=0, atol=0)


def test_generation_in_a_batch_equals_one_by_one_and_a_seed_fixes_it(tiny):
    prompts = [tiny_text(seed, words=n) for seed, n in enumerate([4, 11, 7])]
    assert tiny.generate(prompts, 9) == [tiny.generate(prompt, 9) for prompt in prompts]
    first, again, other = (tiny.generate(prompts[0], 20, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    with pytest.raises(el.EmolabError, match="room for 64"):
        tiny.generate(prompts[0], 61)
    with pytest.raises(el.EmolabError, match="at least one"):
        tiny.generate([])


def test_a_template_that_writes_the_bos_does_not_double_it():
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.add_special_tokens({"bos_token": "<pad>"})
    bos = "<pad>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 0)])
    tokenizer.chat_template = bos + tokenizer.chat_template
    subject = el.load((tiny_model(), tokenizer))
    assert subject.encode("the dog")[:2] == [0, *tokenizer("the", add_special_tokens=False)["input_ids"]]
    text = subject.chat("the dog")
    assert text.startswith(bos) and subject.encode(text).count(0) == 1
    assert len(subject.spans(text)) == len(subject.encode(text)) and subject.spans("the dog")[0] == (0, 0)
