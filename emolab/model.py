"""A causal language model as emolab needs it: `load()` and `Subject`.

One layer convention everywhere: layer k is the residual stream after block k (1..n_layers), and layer 0 is
what enters the first block, the embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from emolab.checks import check_chat, path_of, whole
from emolab.embedded import EMBEDDED, embedded_folder, quiet_transformers
from emolab.errors import EmolabError, brief, unknown

DEFAULT = "smollm2-135m-instruct"


@dataclass(frozen=True, eq=False)
class Subject:
    """The model under study with its tokenizer and its decoder blocks, found and checked when it is made.

    Raises EmolabError if the decoder blocks can't be found or the tokenizer doesn't fit.
    """

    model: nn.Module
    tokenizer: Any
    name: str
    revision: str | None = None
    blocks: Sequence[nn.Module] = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "blocks", _decoder_blocks(self.model))
        if not hasattr(self.tokenizer, "get_vocab"):
            raise EmolabError(f"a tokenizer of transformers goes with the model; got {type(self.tokenizer).__name__}")
        rows = self.model.get_input_embeddings().weight.shape[0]
        if len(self.tokenizer) > rows:
            raise EmolabError(
                f"the tokenizer knows {len(self.tokenizer)} tokens and the model {rows}: they don't belong together; "
                "load both from the same place"
            )
        self.model.eval()
        self.model.requires_grad_(False)

    @property
    def config(self) -> Any:
        """The transformers config of the language model, within that of a model with more parts."""
        return self.model.config.get_text_config()

    @property
    def n_layers(self) -> int:
        """How many decoder blocks there are."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.config.hidden_size

    @property
    def device(self) -> torch.device:
        """Where input goes: the device of the embeddings."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        return self.model.get_input_embeddings().weight.dtype

    @property
    def max_tokens(self) -> int:
        """Length of the context window, in tokens."""
        limits = (getattr(self.config, "max_position_embeddings", None), self.tokenizer.model_max_length)
        return min(int(limit) for limit in limits if limit)

    @property
    def decoder(self) -> nn.Module:
        """The model without its unembedding: running it costs no logits."""
        return self.model.base_model

    @cached_property
    def fingerprint(self) -> str:
        """A short hash of the weights (512 of them, in bfloat16) that tells one model from another."""
        return sha256(self.weight_sample.encode()).hexdigest()[:16]

    @cached_property
    def weight_sample(self) -> str:
        """512 weights of the blocks, spread evenly, in bfloat16 as hexadecimal: the same whatever the dtype."""
        matrices = [p for block in self.blocks for p in block.parameters() if p.ndim == 2 and p.is_floating_point()]
        if not matrices:  # weights packed by a quantiser
            matrices = [self.model.get_input_embeddings().weight]
        picked = [matrices[i * len(matrices) // 512] for i in range(512)]
        values = [m[i * 7919 % m.shape[0], i * 104729 % m.shape[1]] for i, m in enumerate(picked)]
        sample = torch.stack([value.detach().to("cpu", torch.bfloat16) for value in values])
        return sample.view(torch.int16).numpy().astype(">i2").tobytes().hex()

    @cached_property
    def tokenizer_hash(self) -> str:
        """A short hash of the vocabulary."""
        vocabulary = sorted(self.tokenizer.get_vocab().items())
        return sha256(repr(vocabulary).encode()).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        """The token ids of a text, with the special tokens that this model expects around it.

        Raises EmolabError for a text that is empty, has halves of characters (lone surrogates), or is longer than the
        context window.
        """
        if not isinstance(text, str) or not text.strip():
            raise EmolabError(f"the text is empty ({brief(text)}): give at least one word")
        ids = self._tokenized(text)["input_ids"]
        if not ids:
            raise EmolabError(f"{self.name} has no token for {brief(text)}: give at least one word")
        if len(ids) > self.max_tokens:
            raise EmolabError(
                f"the text has {len(ids)} tokens and {self.name} reads at most {self.max_tokens}: "
                f"cut it or split it (it begins {text[:40]!r})"
            )
        return ids

    def _tokenized(self, text: str, **options: Any) -> Any:
        """A text that brings its own BOS, as some chat templates write it, gets no second one."""
        try:
            whole(text)
        except ValueError as error:
            raise EmolabError(f"this can't be read: {error}") from None
        bos = self.tokenizer.bos_token
        begun = bool(bos) and text.startswith(bos)
        return self.tokenizer(text, add_special_tokens=not begun, verbose=False, **options)

    def spans(self, text: str) -> tuple[tuple[int, int], ...]:
        """(start, end) in characters of each token of a text, one after the other without gap or overlap.

        Special tokens that are not in the text (a BOS) get an empty span.
        """
        offsets = self._tokenized(text, return_offsets_mapping=True)["offset_mapping"]
        spans, place = [], 0
        for _, end in offsets:
            spans.append((place, max(place, end)))
            place = spans[-1][1]
        if spans and place < len(text):  # trailing blanks that the tokenizer dropped
            spans[-1] = (spans[-1][0], len(text))
        return tuple(spans)

    def chat(self, messages: str | list[dict], add_generation_prompt: bool = True) -> str:
        """Messages in the model's own chat template, as text; a base model without one gets plain text.

        `messages` is one user message or a list of `{"role": ..., "content": ...}`. Raises EmolabError for anything
        else, or if the template refuses them, as some refuse a system message.
        """
        messages = check_chat([{"role": "user", "content": messages}] if isinstance(messages, str) else messages)
        if self.plain:
            return "\n\n".join(message["content"] for message in messages)
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:  # a template is a program of the model's makers: it may raise anything
            raise EmolabError(f"the chat template of {self.name} refuses these messages: {error}") from error

    def ask(self, message: str) -> str:
        """The text after which a reply to a message begins; of a base model, the message and an empty line."""
        return self.chat(message) + ("\n\n" if self.plain else "")

    @property
    def plain(self) -> str:
        """How messages are read where there is no chat template, in a sentence; '' where there is one."""
        if self.tokenizer.chat_template is not None:
            return ""
        return f"{self.name} has no chat template: messages are read as plain text"

    @property
    def label(self) -> str:
        """The name, as the results of experiments with messages give it: it says if they were read as plain text."""
        return f"{self.name} (a base model: messages as plain text)" if self.plain else self.name

    def generate(
        self, prompt: str | Sequence[str], max_new_tokens: int = 60, *, seed: int | None = None, **options: Any
    ) -> str | list[str]:
        """What the model writes after a prompt, or after each of several in one batch.

        Greedy without a `seed`, sampled with one (the same seed, the same texts); `options` are those of
        transformers' generate. Raises EmolabError for a prompt that is empty or leaves no room in the context window.
        """
        prompts = list(prompt) if isinstance(prompt, list | tuple) else [prompt]
        ids = [self.encode(text) for text in prompts]
        if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
            raise EmolabError(f"how many new tokens is a number from 1 on; got {brief(max_new_tokens)}")
        if not ids or max(map(len, ids)) + max_new_tokens > self.max_tokens:
            raise EmolabError(
                f"prompt and {max_new_tokens} new tokens do not fit: {self.name} has room for {self.max_tokens} tokens"
                if ids
                else "there is no prompt to go on from: give at least one"
            )
        width = max(map(len, ids))  # padding on the left: what is written must follow the prompt at once
        rows = torch.tensor([[self.pad_id] * (width - len(row)) + row for row in ids], device=self.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids], device=self.device)

        def sure(_: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
            if not (logits < float("inf")).all():  # else the token of number 0 would be written, again and again
                raise not_finite(self, "logits that are not numbers")
            return logits

        options = {"do_sample": seed is not None, "pad_token_id": self.pad_id, "logits_processor": [sure]} | options
        if "logits_to_keep" in signature(self.model.forward).parameters:
            # the last place by number: a slice would make torch copy the unembedding for every text of the batch
            options["logits_to_keep"] = torch.tensor([-1], device=self.device)
        with torch.no_grad(), torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            written = self.model.generate(input_ids=rows, attention_mask=mask, max_new_tokens=max_new_tokens, **options)
        texts = [self._added(row, new) for row, new in zip(ids, written[:, width:].tolist(), strict=True)]
        return texts if isinstance(prompt, list | tuple) else texts[0]

    def _added(self, before: list[int], new: list[int]) -> str:
        """The text that new tokens add: some tokenizers drop the blank before the first word of what they decode."""
        start, whole = self.tokenizer.batch_decode([before, before + new], skip_special_tokens=True)
        if whole.startswith(start):
            return whole[len(start) :]
        return self.tokenizer.decode(new, skip_special_tokens=True)

    @property
    def pad_id(self) -> int:
        """A token id to pad with; the attention mask hides it, so any will do."""
        return next((i for i in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id) if i is not None), 0)


def load(
    name: Any = DEFAULT,
    *,
    dtype: torch.dtype | None = None,
    device_map: str | dict | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Subject:
    """A model to study.

    Parameters
    ----------
    name : the embedded default (fetched once, then offline), a model id on the Hugging Face hub ('org/name'),
        a local folder, or a ready `(model, tokenizer)` pair.
    dtype : compute dtype; by default bfloat16 where the machine does it natively, else float32.
    device_map : passed to transformers; by default the first GPU if there is one, else the CPU.
        'auto' spreads a large model over what there is.
    revision : a branch, tag or commit of a hub model.
    trust_remote_code : leave it off unless you have read the code that the repository ships.

    Raises
    ------
    EmolabError : the model can't be found, fetched or understood; the message says what to do.
    """
    if isinstance(name, tuple):
        return _ready(name)
    path = find(name)
    known = str(name).lower() in EMBEDDED

    from transformers import AutoModelForCausalLM, AutoTokenizer

    shared = {"revision": revision, "trust_remote_code": trust_remote_code}
    device = device_map or ("cuda:0" if torch.cuda.is_available() else None)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(path, **shared)
            model, report = AutoModelForCausalLM.from_pretrained(
                path, dtype=dtype or fast_dtype(), device_map=device, output_loading_info=True, **shared
            )
        if lacking := sorted(report["missing_keys"]):  # transformers would make them up at random
            raise ValueError(f"its weights lack {lacking[0]} and {len(lacking) - 1} more.")
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise EmolabError(why_not(str(name), error)) from error
    tokenizer.padding_side = "right"
    return Subject(model, tokenizer, str(name).lower() if known else str(name), revision)


def find(name: Any) -> str:
    """What transformers opens: the folder of an embedded model, fetched if need be, a folder, or a hub id."""
    path_of(name)
    path = str(name)
    if path.lower() in EMBEDDED:
        return str(embedded_folder(path.lower()))
    if not Path(path).is_dir() and "/" not in path:
        raise unknown("model", path, EMBEDDED)
    if not Path(path).is_dir() and (path.startswith((".", "/", "~")) or path.count("/") > 1):
        raise EmolabError(f"there is no folder {path}: give the folder of a model, or a hub id 'org/name'")
    return path


def not_finite(subject: Subject, what: str) -> EmolabError:
    """The error for a model that gives NaN, or numbers without end."""
    return EmolabError(
        f"{subject.name} gives {what}, computing in {subject.dtype}: load it with dtype=torch.float32, check its "
        "weights, or push it less"
    )


def fast_dtype() -> torch.dtype:
    """bfloat16 where the hardware computes in it, else float32."""
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    native = any(getattr(torch.cpu, test, bool)() for test in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return torch.bfloat16 if native else torch.float32


def _ready(pair: tuple) -> Subject:
    if len(pair) != 2 or not isinstance(pair[0], nn.Module):
        raise EmolabError(f"expected a (model, tokenizer) pair, got {tuple(type(part).__name__ for part in pair)}")
    model, tokenizer = pair
    name = getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__
    return Subject(model, tokenizer, name)


def why_not(name: str, error: Exception) -> str:
    """What to do about a model that transformers can't open."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        return (
            f"{name} ships its own Python code, which emolab does not run unasked. Read that code, and if you trust "
            f"it call load({name!r}, trust_remote_code=True)"
        )
    if Path(name).is_dir():
        return f"the folder {name} is not a causal language model that transformers opens: {reason}"
    return (
        f"can't load {name}: {reason} Check the spelling on huggingface.co, your network, and for a gated model "
        f"run `hf auth login`; {DEFAULT!r} needs no hub"
    )


def _decoder_blocks(model: nn.Module) -> Sequence[nn.Module]:
    """The list of decoder blocks: as long as the text config says, outermost, and not of a vision tower."""
    config = getattr(model, "config", None)
    if config is None:
        raise EmolabError(f"{type(model).__name__} has no transformers config: give a transformers causal model")
    depth = config.get_text_config().num_hidden_layers
    lists = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)]
    fitting = [
        (name, part)
        for name, part in lists
        if len(part) == depth and not any(word in name for word in ("vision", "visual", "audio", "encoder"))
    ]
    if not fitting:
        found = ", ".join(f"{name} ({len(part)})" for name, part in lists) or "none"
        raise EmolabError(
            f"can't find the {depth} decoder blocks of {type(model).__name__}; lists of modules there: {found}. "
            "emolab reads decoder-only models of transformers"
        )
    return min(fitting, key=lambda item: item[0].count("."))[1]
