"""`plan()`: what an extraction will take, before anything large is fetched or loaded.

Tokens are counted with the model's own tokenizer and parameters from its config. Speed is measured on this machine: a
few of the stories are read by a model of the same shape, random weights and few blocks; what a block costs does not
depend on what it has learned. Of a model on the hub only config and tokenizer are fetched.
"""

import os
import time
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from emolab import data
from emolab.activations import check_layers, mean_activations, token_budget
from emolab.data import Story
from emolab.embedded import EMBEDDED, here, quiet_transformers
from emolab.errors import EmolabError
from emolab.extraction import NEUTRAL_TOKENS, HeldOut
from emolab.model import DEFAULT, Subject, fast_dtype, find, why_not

BLOCKS = 2  # of the model that stands for the real one
TEXTS = 12  # stories that are read for the measurement
CHUNK = 512  # stories whose means are in memory at a time, as in corpus.py
GB, MB = 2**30, 2**20


@dataclass(frozen=True)
class Plan:
    """What an extraction takes.

    texts, tokens : of all corpora together
    parameters, n_layers, d_model : of the model; deepest : the last layer that is read
    weights, working : bytes of memory, for the model and for all else
    disk : bytes of unfinished work that an interrupted run leaves
    memory : bytes that this machine has where the model goes (NaN if unknown)
    tokens_per_s : through all blocks up to the deepest
    """

    model: str
    texts: int
    tokens: int
    parameters: int
    n_layers: int
    d_model: int
    deepest: int
    dtype: str
    device: str
    weights: int
    working: int
    disk: int
    memory: float
    tokens_per_s: float

    @property
    def seconds(self) -> float:
        """Reading all texts once. Loading and fitting come on top: minutes at most."""
        return self.tokens / self.tokens_per_s

    def verdict(self) -> str:
        """The plan in words."""
        need, speed = (self.weights + self.working) / GB, f"{self.tokens_per_s:,.0f} tokens/s"
        said = (
            f"{self.model}: {self.parameters / 1e6:,.0f} million parameters, {self.n_layers} layers, d_model "
            f"{self.d_model}. {self.texts:,} texts make {self.tokens:,} tokens. In {self.dtype} on {self.device} about "
            f"{need:.1f} GB of memory (weights {self.weights / GB:.1f}), {self.disk / MB:,.0f} MB on disk while it "
            f"works, and {_duration(self.seconds)} to read them up to layer {self.deepest}, at {speed} as "
            f"measured here on {BLOCKS} blocks of random weights."
        )
        if need * GB > self.memory:
            said += (
                f" There are {self.memory / GB:.1f} GB: spread it with device_map='auto', take a smaller dtype or "
                "model, or read fewer layers."
            )
        return said


def plan(
    model: Any = DEFAULT,
    stories: Iterable[Story] | str | Path | None = None,
    *,
    layers: Sequence[int] | None = None,
    held_out: HeldOut | None = None,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
) -> Plan:
    """What `extract()` would take with the same arguments: tokens exactly, memory and time about.

    model : what `load()` takes by name. Raises EmolabError for a model whose config or tokenizer can't be had, an
    embedded one that isn't here (nothing is fetched for a plan), or layers that it does not have.
    """
    name, device = str(model), torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name.lower() in EMBEDDED and not here(name.lower()):
        raise EmolabError(
            f"{name} is not here: fetch it first with `emolab model get {name}` (see `emolab model list`)"
        )
    config, tokenizer = _described(name, revision)
    dtype = dtype or fast_dtype()
    held_out = held_out or HeldOut.shipped()
    corpus = data.story_file(stories or "stories") if stories is None or isinstance(stories, str | Path) else stories
    survey, sample = data.survey(corpus), _sample(corpus)
    twin = _twin(config, tokenizer, name, dtype, device)
    shape = config.num_hidden_layers, config.hidden_size
    chosen = check_layers(_Depth(name, shape[0]), layers)
    beside = [*held_out.choose, *held_out.test]
    texts = [*(story.text for story in beside), *data.neutral()]
    tokens = sum(len(twin.encode(story.text)) for story in corpus) + sum(len(twin.encode(text)) for text in texts)
    parameters = _parameters(config)
    held = (CHUNK + len(beside) + len(survey.sample)) * len(chosen) * shape[1] * 4  # means, in float32
    return Plan(
        name,
        survey.n + len(texts),
        tokens,
        parameters,
        *shape,
        deepest=max(chosen),
        dtype=str(dtype).removeprefix("torch."),
        device=str(device.type),
        weights=parameters * dtype.itemsize,
        working=held + _sums(survey, len(chosen), shape[1]) + _batch(twin, config, dtype),
        disk=held,
        memory=_memory(device),
        tokens_per_s=_speed(twin, sample) * BLOCKS / max(max(chosen), 1),
    )


@dataclass(frozen=True)
class _Depth:
    """As much of a subject as `check_layers` asks for."""

    name: str
    n_layers: int


def _described(name: str, revision: str | None) -> tuple[Any, Any]:
    """Config of the language model, and tokenizer."""
    from transformers import AutoConfig, AutoTokenizer

    path = find(name)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path, revision=revision).get_text_config()
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
        _parameters(config)
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise EmolabError(why_not(name, error)) from error
    return config, tokenizer


def _parameters(config: Any) -> int:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):  # shapes without memory
        return sum(weights.numel() for weights in AutoModelForCausalLM.from_config(config).parameters())


def _twin(config: Any, tokenizer: Any, name: str, dtype: torch.dtype, device: torch.device) -> Subject:
    """A model of the same shape with few blocks, random weights, and one embedding for all tokens."""
    from transformers import AutoModelForCausalLM

    small = deepcopy(config)
    small.num_hidden_layers, rows = BLOCKS, max(config.vocab_size, len(tokenizer))
    if getattr(small, "layer_types", None):
        small.layer_types = small.layer_types[:BLOCKS]
    small.vocab_size = 8
    small.pad_token_id = small.bos_token_id = small.eos_token_id = None
    model = AutoModelForCausalLM.from_config(small, dtype=dtype).to(device)
    table = nn.Embedding(1, model.get_input_embeddings().weight.shape[1], dtype=dtype, device=device)
    table.weight = nn.Parameter(table.weight.detach().expand(rows, -1), requires_grad=False)  # takes no room
    embeddings = model.get_input_embeddings()
    embeddings.weight, embeddings.num_embeddings = table.weight, rows
    return Subject(model, tokenizer, name)


def _sample(corpus: Iterable[Story]) -> list[str]:
    """A few texts from the beginning of the corpus."""
    return [story.text for _, story in zip(range(TEXTS), corpus, strict=False)]


def _speed(twin: Subject, texts: Sequence[str]) -> float:
    """Tokens a second through the twin's blocks, as `extract()` reads; the second of two runs."""
    for _ in range(2):
        start = time.perf_counter()
        means = mean_activations(twin, texts, offset=1, progress=None)
        seconds = time.perf_counter() - start
    return float(means.lengths.sum()) / seconds


def _sums(survey: data.Survey, n_layers: int, d_model: int) -> int:
    """Running sums in float64, one layer's fit, and the vectors."""
    squares = (n_layers + 4) * d_model**2 * 8
    linear = (len(survey.emotions) + len(survey.parts)) * 8 + 2 * len(survey.emotions) * 12
    return squares + (linear + NEUTRAL_TOKENS * 4) * n_layers * d_model


def _batch(twin: Subject, config: Any, dtype: torch.dtype) -> int:
    """What a block holds while it reads a batch: about a dozen rows as wide as the stream, and three as the MLP."""
    wide = 12 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    at_once = torch.get_num_threads() if twin.device.type == "cpu" else 1
    return at_once * token_budget(twin) * wide * dtype.itemsize


def _memory(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[1])
    known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if known else float("nan")


def _duration(seconds: float) -> str:
    """
    >>> _duration(40), _duration(400), _duration(40_000)
    ('40 s', '7 minutes', '11 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.0f} hours"
