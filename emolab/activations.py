"""Reading the residual stream: `read()` one text token by token, `mean_activations()` many texts as means.

Hooks on the decoder blocks take what is needed while the model runs, so no hidden states are stored; the run
stops after the deepest layer that was asked for. Batches are right-padded, with an attention mask, and made of
texts of like length; a CPU runs as many batches side by side as it has cores. Block outputs are read, never
`output_hidden_states`, whose last entry has the final norm applied.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from emolab.errors import EmolabError
from emolab.model import Subject, not_finite
from emolab.workshop import Store

Collect = Callable[[int, torch.Tensor], None]

MOST = 1e18  # of an activation: the squares of larger ones are not finite in float32
SHORT = 512  # tokens: up to here a CPU is better used by several small forward passes than by one large one


@dataclass(frozen=True)
class Means:
    """Mean residual stream of each text over its tokens from an offset on.

    means : [text, layer, d_model] float32
    norms : [text, layer] mean length of the residual stream over the same tokens
    tokens : [text] how many tokens were averaged
    lengths : [text] how many tokens there are in all
    layers : the layer numbers along axis 1
    """

    means: np.ndarray
    norms: np.ndarray
    tokens: np.ndarray
    lengths: np.ndarray
    layers: tuple[int, ...]

    def __getitem__(self, rows: slice) -> "Means":
        """Those of some texts."""
        return Means(self.means[rows], self.norms[rows], self.tokens[rows], self.lengths[rows], self.layers)


def all_layers(subject: Subject) -> tuple[int, ...]:
    """1..n_layers: the residual stream after each block."""
    return tuple(range(1, subject.n_layers + 1))


def check_layers(subject: Subject, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers to read in rising order; all of them for None. Raises EmolabError for one that isn't there."""
    if layers is None:
        return all_layers(subject)
    chosen = tuple(sorted({int(layer) for layer in layers}))
    if not chosen or chosen[0] < 0 or chosen[-1] > subject.n_layers:
        raise EmolabError(
            f"layers {list(layers)} are not all in {subject.name}: it has 1..{subject.n_layers} (0: the embeddings)"
        )
    return chosen


def read(subject: Subject, text: str, layers: Sequence[int] | None = None) -> np.ndarray:
    """The residual stream of one text at every token.

    Returns float32 [layer, token, d_model] for the layers asked for (default 1..n_layers). Raises EmolabError
    for an empty text, one beyond the context window, or activations that are not finite.
    """
    layers = check_layers(subject, layers)
    ids = torch.tensor([subject.encode(text)])
    taken: dict[int, torch.Tensor] = {}
    with capture(subject, layers, lambda layer, hidden: taken.update({layer: hidden[0].float().cpu()})):
        forward(subject, ids, torch.ones_like(ids))
    hidden = torch.stack([taken[layer] for layer in layers]).numpy()  # [layer, token, d_model]
    _check_finite(subject, hidden.swapaxes(0, 1), layers)
    return hidden


def mean_activations(
    subject: Subject,
    texts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    offset: int = 10,
    folder: Path | None = None,
    progress: str | tqdm | None = "reading",
) -> Means:
    """The mean residual stream of each text over its tokens from `offset` on (paper section 1.2: there 50).

    Parameters
    ----------
    layers : which to read; default 1..n_layers.
    offset : the first token that counts; token 0 carries a huge norm and should never be in a mean.
    folder : keep finished batches there, so that an interrupted call goes on where it stopped.
    progress : label of the progress bar, None for none, or a bar to advance.

    Raises
    ------
    EmolabError : no texts; a text that is empty, not longer than the offset, or beyond the context window;
        activations that are not finite.
    """
    layers = check_layers(subject, layers)
    ids = encode_all(subject, texts, offset)
    batches, at_once = _plan(subject, ids)
    plan = _plan_key(subject, ids, layers, offset, batches)
    store = Store(folder, plan, len(ids), len(layers), subject.d_model, len(batches))
    todo = [number for number in range(len(batches)) if not store.done[number]]

    def read_batch(number: int) -> int:
        input_ids, mask = pad([ids[i] for i in batches[number]], subject.pad_id)
        weights = mask.float()
        weights[:, :offset] = 0
        weights = (weights / weights.sum(1, keepdim=True)).unsqueeze(1)  # [text, 1, token]
        taken: list[tuple[torch.Tensor, torch.Tensor]] = []

        def collect(_: int, hidden: torch.Tensor) -> None:
            hidden = hidden.float()  # [text, token, d_model]
            share = weights.to(hidden.device)
            norms = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
            taken.append((torch.bmm(share, hidden)[:, 0], torch.bmm(share, norms)[:, 0, 0]))

        hooked.collect = collect
        forward(subject, input_ids, mask)
        for row, (means, norms) in enumerate(taken):  # only now, so that a GPU never waits between layers
            store.means[batches[number], row] = means.cpu().numpy()
            store.norms[batches[number], row] = norms.cpu().numpy()
        return number

    with (
        _bar(progress, ids, batches, todo) as advance,
        brisk_attention(subject, ids),
        _hooks(subject, layers) as hooked,
        _side_by_side(at_once) as each,
    ):
        for number in each(read_batch, todo):
            _check_finite(subject, store.means[batches[number]], layers)
            store.finish(number)
            advance(batches[number])
    lengths = np.array([len(i) for i in ids])
    return Means(store.means, store.norms, lengths - offset, lengths, layers)


def sample_tokens(
    subject: Subject,
    texts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    offset: int = 1,
    per_text: int = 10,
    progress: str | None = "reading",
) -> np.ndarray:
    """The residual stream at `per_text` evenly spaced tokens of each text, from `offset` on (repeated if too few).

    Returns float32 [layer, text x per_text, d_model]. Raises EmolabError as `mean_activations` does.
    """
    layers = check_layers(subject, layers)
    ids = encode_all(subject, texts, offset)
    batches, at_once = _plan(subject, ids)
    sample = np.empty((len(layers), len(ids), per_text, subject.d_model), dtype=np.float32)
    rows = {layer: row for row, layer in enumerate(layers)}

    def read_batch(number: int) -> int:
        batch = batches[number]
        input_ids, mask = pad([ids[i] for i in batch], subject.pad_id)
        places = torch.stack([torch.linspace(offset, len(ids[i]) - 1, per_text).long() for i in batch])
        texts_axis = torch.arange(len(batch)).unsqueeze(1)  # against places [text, per_text]

        def collect(layer: int, hidden: torch.Tensor) -> None:
            picked = hidden[texts_axis.to(hidden.device), places.to(hidden.device)]
            sample[rows[layer], batch] = picked.float().cpu().numpy()

        hooked.collect = collect
        forward(subject, input_ids, mask)
        return number

    every = range(len(batches))
    with (
        _bar(progress, ids, batches, every) as advance,
        brisk_attention(subject, ids),
        _hooks(subject, layers) as hooked,
        _side_by_side(at_once) as each,
    ):
        for number in each(read_batch, every):
            advance(batches[number])
    sample = sample.reshape(len(layers), -1, subject.d_model)
    _check_finite(subject, sample.swapaxes(0, 1), layers)
    return sample


# --- running the model -------------------------------------------------------------------------------------------


class _DeepEnough(Exception):
    """Raised in the hook of the deepest layer asked for: the rest of the model need not run."""


@contextmanager
def capture(subject: Subject, layers: Sequence[int], collect: Collect) -> Iterator[None]:
    """While open, each `forward()` of this thread calls `collect(layer, hidden [text, token, d_model])` and stops
    after the deepest layer.
    """
    with _hooks(subject, layers) as hooked:
        hooked.collect = collect
        yield


@contextmanager
def _hooks(subject: Subject, layers: Sequence[int]) -> Iterator[threading.local]:
    """Hooks on the layers. Each thread sets its own `.collect` on what this yields; without one it runs undisturbed."""
    hooked, deepest = threading.local(), max(layers)

    def take(layer: int, hidden: torch.Tensor) -> None:
        if collect := getattr(hooked, "collect", None):
            collect(layer, hidden)
            if layer == deepest:
                raise _DeepEnough

    def before_first(module, args, kwargs):
        take(0, args[0] if args else kwargs["hidden_states"])

    def after(layer):
        return lambda module, args, output: take(layer, output[0] if isinstance(output, tuple) else output)

    handles = [subject.blocks[layer - 1].register_forward_hook(after(layer)) for layer in layers if layer]
    if 0 in layers:
        handles.append(subject.blocks[0].register_forward_pre_hook(before_first, with_kwargs=True))
    try:
        yield hooked
    finally:
        for handle in handles:
            handle.remove()


def forward(subject: Subject, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
    """Run the decoder on a batch [text, token] for the sake of what `capture()` takes."""
    with torch.inference_mode(), suppress(_DeepEnough):
        subject.decoder(
            input_ids=input_ids.to(subject.device),
            attention_mask=attention_mask.to(subject.device),
            use_cache=False,
        )


def _plan(subject: Subject, ids: Sequence[Sequence[int]]) -> tuple[list[list[int]], int]:
    """Batches, and how many of them to run at once: on a CPU, for short texts, one for each of its threads.

    One thread for each batch spares the small operations the waiting for one another (+20 % tokens/s on 2 cores). Only
    for models whose weights stay in place and whose code is that of transformers, which is thread-safe.
    """
    lengths, budget = [len(i) for i in ids], token_budget(subject)
    in_place = all(weight.device.type == "cpu" for weight in subject.model.parameters())
    known = type(subject.model).__module__.startswith("transformers.")
    at_once = torch.get_num_threads() if in_place and known and max(lengths) <= SHORT else 1
    if at_once > 1:
        budget = min(budget, -(-sum(lengths) // at_once))  # of a few texts, some for every thread
    batches = plan_batches(lengths, budget)
    return batches, min(at_once, len(batches))


@contextmanager
def _side_by_side(at_once: int) -> Iterator[Callable]:
    """A `map()` that does so much at once, each with its share of torch's threads."""
    if at_once == 1:
        yield map
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(threads // at_once,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@contextmanager
def brisk_attention(subject: Subject, ids: Sequence[Sequence[int]]) -> Iterator[None]:
    """On a CPU, plain matrix products beat the fused attention kernel for short texts (+15 % tokens/s)."""
    kernel = getattr(subject.config, "_attn_implementation", None)
    if subject.device.type != "cpu" or kernel != "sdpa" or max(map(len, ids)) > SHORT:
        yield
        return
    subject.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        subject.model.set_attn_implementation(kernel)


# --- batches -----------------------------------------------------------------------------------------------------


def encode_all(subject: Subject, texts: Sequence[str], offset: int, first: int = 0) -> list[list[int]]:
    """Token ids of each text; raises EmolabError, naming the text by its number from `first` on, where one can't be
    used.
    """
    if not len(texts):
        raise EmolabError("there are no texts to read: give at least one")
    found = []
    for number, text in enumerate(texts, first):
        try:
            ids = subject.encode(text)
        except EmolabError as error:
            raise EmolabError(f"text {number}: {error}") from None
        if len(ids) <= offset:
            raise EmolabError(
                f"text {number} has {len(ids)} tokens, and means start at token {offset}: give a longer text or a "
                f"smaller offset (it begins {text[:40]!r})"
            )
        found.append(ids)
    return found


def token_budget(subject: Subject) -> int:
    """Padded tokens in a batch: enough to keep the machine busy, few enough to stay in its caches."""
    return 1024 if subject.device.type == "cpu" else 16384


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of texts grouped by like length, longest first, at most `budget` padded tokens a batch.

    >>> plan_batches([3, 9, 4, 8], budget=18)
    [[1, 3], [2, 0]]
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def pad(ids: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and their attention mask, both [text, token].

    >>> pad([[5, 6], [7]], pad_id=0)
    (tensor([[5, 6],
            [7, 0]]), tensor([[1, 1],
            [1, 0]]))
    """
    width = max(map(len, ids))
    rows = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in ids])
    return rows, mask


@contextmanager
def _bar(progress: str | tqdm | None, ids, batches, todo) -> Iterator[Callable[[list[int]], None]]:
    """What to call after each batch, to advance a bar of our own or that of a larger whole."""
    start, tokens = time.monotonic(), 0
    done = len(ids) - sum(len(batches[number]) for number in todo)
    if whole := isinstance(progress, tqdm):
        bar = progress
        bar.update(done)
    else:
        bar = tqdm(total=len(ids), initial=done, desc=progress, unit=" texts", disable=progress is None, smoothing=0.1)

    def advance(batch: list[int]) -> None:
        nonlocal tokens
        tokens += sum(len(ids[i]) for i in batch)
        bar.update(len(batch))
        bar.set_postfix_str(f"{tokens / (time.monotonic() - start):,.0f} tokens/s")

    with nullcontext() if whole else bar:
        yield advance


def _check_finite(subject: Subject, means: np.ndarray, layers: Sequence[int]) -> None:
    bad = ~(np.abs(means) < MOST).all(axis=(0, 2))  # [layer]
    if bad.any():
        raise not_finite(subject, f"activations that are not finite from layer {layers[int(bad.argmax())]} on")


def _plan_key(subject: Subject, ids, layers, offset, batches) -> str:
    plan = [subject.weight_sample, str(subject.dtype), subject.device.type, ids, layers, offset, batches]
    return sha256(json.dumps(plan).encode()).hexdigest()
