"""Small random models of many architectures, and the embedded model, for the tests."""

import os
import random
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach for the hub

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import emolab as el

WORDS = (  # noqa: SIM905
    "the a she he it was and of in to door hand night light sun rain dog walked ran sat laughed cried shook smiled "
    "waited alone together slowly quickly dark bright cold warm heart breath voice eyes street house"
).split()

ARCHITECTURES = {
    "llama": {},
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "gemma2": {"head_dim": 8, "sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8},
    "gpt2": {},
    "gpt_neox": {},
    "phi": {},
    "falcon": {"new_decoder_architecture": False},
    "olmo2": {},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}


def tiny_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """A word tokenizer over WORDS."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>")
    if chat:
        fast.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    return fast


def tiny_model(architecture: str = "llama", seed: int = 0, **options) -> torch.nn.Module:
    """A random model: 4 layers, d_model 32, in float32, with weights large enough to matter."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        architecture,
        **{
            "vocab_size": len(WORDS) + 2,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": None,
        }
        | ARCHITECTURES.get(architecture, {})
        | options,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def tiny_subject(architecture: str = "llama", seed: int = 0, **options) -> el.Subject:
    return el.load((tiny_model(architecture, seed, **options), tiny_tokenizer()))


def save_tiny(folder: Path, **options) -> Path:
    """A tiny model as a transformers folder."""
    tiny_model(**options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_text(seed: int, words: int = 20) -> str:
    """Random words that the tiny tokenizer knows, one token each."""
    return " ".join(random.Random(seed).choices(WORDS, k=words))


NEUTRAL = [tiny_text(100 + seed, words=50) for seed in range(40)]  # 1,600 tokens from the tenth on: all are sampled


def tiny_stories(emotions=("afraid", "calm", "glad"), parts=("p1", "p2", "p3")) -> list[el.Story]:
    """A random text for every emotion in every part."""
    cells = [(emotion, part) for part in parts for emotion in emotions]
    return [el.Story(emotion, tiny_text(seed), part) for seed, (emotion, part) in enumerate(cells)]


@contextmanager
def full_disk(size: int = 1000):
    """While open, no file can grow beyond `size` bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def counted(subject: el.Subject):
    """While open, how often the model has run, as a list that grows."""
    ran = []
    handle = subject.model.base_model.register_forward_pre_hook(lambda *_: ran.append(1))
    try:
        yield ran
    finally:
        handle.remove()


@pytest.fixture(scope="session")
def tiny() -> el.Subject:
    """A tiny random llama."""
    return tiny_subject()


@pytest.fixture(scope="session")
def tiny_vectors(tiny, tmp_path_factory) -> el.EmotionVectors:
    """Vectors of the tiny llama, from random texts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return el.extract(tiny, tiny_stories(), held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)


@pytest.fixture(scope="session")
def long_tiny() -> el.Subject:
    """A tiny model with room for whole passages."""
    return el.load((tiny_model(max_position_embeddings=512), tiny_tokenizer()))


@pytest.fixture(scope="session")
def long_vectors(long_tiny, tmp_path_factory) -> el.EmotionVectors:
    """Its vectors, of three emotions that have passages."""
    stories = [
        el.Story(emotion, tiny_text(i), f"p{i // 3}") for i, emotion in enumerate(("afraid", "calm", "angry") * 4)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        return el.extract(long_tiny, stories, held_out=el.HeldOut(), neutral=NEUTRAL, progress=False)


@pytest.fixture(scope="session")
def subject() -> el.Subject:
    """The embedded model."""
    return el.load()


@pytest.fixture(scope="session")
def shipped() -> el.EmotionVectors:
    """The vectors that come with it."""
    return el.load_vectors(el.DEFAULT)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("EMOLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
