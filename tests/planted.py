"""A model whose emotion vectors are known, because we put them there: a llama with weights written by hand.

Each token of the vocabulary says so much for each emotion. Attention is the plain mean of what came before, so the
emotions of a text are in the residual stream at each of its tokens, one coordinate each; and the unembedding expects
the tokens that are typical of the emotions found there, in proportion. What is typical is counted in our own texts,
those that the experiments measure among them: this is a model that does what is claimed, not one that learned it.
Two more habits are planted: it expects the harmful way out where it reads desperate and the honest one where it reads
calm, and of two activities it names the one that reads as more pleasant.
"""

from collections import Counter

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

import emolab as el
from emolab.model import Subject

NAMES = (  # those that the experiments ask for
    "afraid", "angry", "blissful", "calm", "desperate", "guilty", "happy", "hostile", "inspired", "loving", "nervous",
    "proud", "sad", "surprised",
)  # fmt: skip
D_MODEL, LAYERS = 128, 6
CONSTANT, CHOICE, FIRST = 0, 1, 2  # coordinates: always on; A rather than B; the first emotion's
LOUD = 16.0  # the constant: most of the norm, so that normalising hardly bends anything
CONTENT = 0.8  # of all coordinates that are no emotion's: what else a token means
UNIT = 4.0  # how far along its coordinate the state of a text lies that is full of an emotion
OWN = 0.1  # how strongly a token shows what it says by itself
TOLD = {1: 1.0, 4: 1.0}  # blocks that add the mean of what came before, and how strongly
TRUST = 2.5  # how far the unembedding goes by the state: it knows a text by its words, few at first
RARE, RIDGE = 0.5, 0.02  # tokens counted beforehand; how strongly regression is held back
LIKING = 2.0  # how far a unit of pleasantness moves the answer
WAYS_OUT = 1.0  # how typical harmful replies' tokens are of desperate rather than calm, and honest ones' the reverse


def planted_subject(like: Subject) -> Subject:
    """The planted model, with the tokenizer of another."""
    tokenizer = like.tokenizer
    typical, base = token_emotions(tokenizer)  # [token, emotion], [token]
    says = what_tokens_say(tokenizer, typical)  # [token, emotion]
    config = LlamaConfig(
        vocab_size=like.model.get_input_embeddings().weight.shape[0],
        hidden_size=D_MODEL,
        intermediate_size=8,
        num_hidden_layers=LAYERS,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=D_MODEL,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).float()
    emotion, n = slice(FIRST, FIRST + len(NAMES)), len(says)
    with torch.no_grad():
        for number, block in enumerate(model.model.layers, 1):
            for matrix in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj, block.mlp.down_proj):
                matrix.weight.zero_()
            block.self_attn.o_proj.weight.copy_(torch.eye(D_MODEL))
            told = TOLD.get(number, 0) / (OWN if number == 1 else 1)
            block.self_attn.v_proj.weight[emotion, emotion] = told * torch.eye(len(NAMES))
        embedding = model.get_input_embeddings().weight
        embedding.normal_(0, CONTENT)
        embedding[:, CONSTANT], embedding[:, CHOICE], embedding[:, emotion] = LOUD, 0, 0
        embedding[:n, emotion] = torch.from_numpy(OWN * UNIT * says)
        head = model.get_output_embeddings().weight
        head.zero_()
        head[:, CONSTANT] = float(base.min()) / np.sqrt(D_MODEL)
        head[:n, CONSTANT] = torch.from_numpy(base) / np.sqrt(D_MODEL)
        head[:n, emotion] = torch.from_numpy(TRUST * typical) / (2 * UNIT)  # told twice
        for sign, letter in ((1, "A"), (-1, "B")):
            for form in (letter, f" {letter}"):
                head[tokenizer(form)["input_ids"][0], CHOICE] = sign
    pleasant = torch.zeros(D_MODEL)
    pleasant[emotion] = torch.from_numpy(pleasantness(tokenizer, says)) / UNIT
    model.model.layers[4] = Choice(model, tokenizer, pleasant)
    return el.load((model, tokenizer))


class Choice(nn.Module):
    """A block that weighs the first two activities of the text against each other, by how pleasant they read."""

    def __init__(self, model, tokenizer, pleasant):
        super().__init__()
        self.activities = {}  # token ids by their first
        for form in _activities():
            ids = tokenizer(form)["input_ids"]
            self.activities.setdefault(ids[0], []).append(ids)
        self.pleasant = pleasant
        self.ids = None
        self.weight = nn.Parameter(torch.zeros(1, 1))
        model.model.register_forward_pre_hook(self.remember, with_kwargs=True)

    def remember(self, module, args, kwargs):
        self.ids = kwargs["input_ids"].tolist()

    def forward(self, hidden, *args, **kwargs):
        hidden = hidden.clone()
        for row, ids in enumerate(self.ids):
            spans = self.spans(ids)
            if len(spans) >= 2:
                (a, b), (c, d) = spans[:2]
                liked = hidden[row, a:b].mean(0) @ self.pleasant - hidden[row, c:d].mean(0) @ self.pleasant
                hidden[row, d:, CHOICE] += LIKING * liked
        return hidden

    def spans(self, ids: list[int]) -> list[tuple[int, int]]:
        """(start, stop) tokens of the activities in a text, in order; none in a text that goes on token by token."""
        return [
            (i, i + len(activity))
            for i, first in enumerate(ids)
            for activity in self.activities.get(first, ())
            if ids[i : i + len(activity)] == activity
        ]


def _activities() -> list[str]:
    return [before + row["text"] for row in el.prompts("activities") for before in ("", " ")]


def labelled_texts() -> list[tuple[str, str]]:
    """(text, emotion) of all our texts that show one of NAMES; neutral ones have the emotion ''."""
    sources = ("stories", "implicit", "implicit_second")
    found = [(story.text, story.emotion) for source in sources for story in el.stories(source)]
    found += [(row[version], version) for row in el.prompts("dilemmas") for version in ("desperate", "calm")]
    for row in el.prompts("switching"):
        found += [(part["text"], part["state"].replace("neutral", "")) for part in row["segments"]]
    return [(text, emotion) for text, emotion in found if emotion in ("", *NAMES)] + [(t, "") for t in el.neutral()]


def token_emotions(tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """[token, emotion] how much likelier each token is under an emotion (nats), and [token] its log-probability."""
    counts = np.zeros((len(tokenizer), 1 + len(NAMES)))
    for text, emotion in labelled_texts():
        for token, count in Counter(tokenizer(text)["input_ids"]).items():
            counts[token, NAMES.index(emotion) + 1 if emotion else 0] += count
    whole = counts.sum(1, keepdims=True) + 0.05
    expected = whole / whole.sum() * counts.sum(0)
    typical = np.log((counts + RARE) / (expected + RARE))[:, 1:]  # shrunk where a token is rare
    typical -= typical.mean(1, keepdims=True)  # what is typical of any emotion tells none from others
    for column, name in enumerate(NAMES):
        for form in (name, f" {name}", name.capitalize()):
            token = tokenizer(form)["input_ids"][0]
            typical[token] = 0
            typical[token, column] = 4
    harmful, honest = (
        {token for row in el.prompts("dilemmas") for token in tokenizer(" " + row[side])["input_ids"]}
        for side in ("harmful", "honest")
    )
    for tokens, towards, away in ((harmful - honest, "desperate", "calm"), (honest - harmful, "calm", "desperate")):
        for token in tokens:
            typical[token, NAMES.index(towards)] += WAYS_OUT
            typical[token, NAMES.index(away)] -= WAYS_OUT
    return typical.astype(np.float32), np.log(whole[:, 0] / whole.sum()).astype(np.float32)


def what_tokens_say(tokenizer, typical: np.ndarray) -> np.ndarray:
    """[token, emotion] such that the mean over a text is near 1 for its emotion, 0 for others: ridge regression."""
    texts = labelled_texts()
    means = np.stack([typical[tokenizer(text)["input_ids"]].mean(0) for text, _ in texts]).astype(float)
    wanted = np.array([[emotion == name for name in NAMES] for _, emotion in texts], float)
    centre, middle = means.mean(0), wanted.mean(0)
    away = means - centre
    ridge = RIDGE * np.trace(away.T @ away) / len(NAMES) * np.eye(len(NAMES))
    turn = np.linalg.solve(away.T @ away + ridge, away.T @ (wanted - middle))
    return ((typical - centre) @ turn + middle).astype(np.float32)


def pleasantness(tokenizer, says: np.ndarray) -> np.ndarray:
    """[emotion] from hostile to blissful, as far as what activities say varies along it."""
    said = np.stack([says[tokenizer(form)["input_ids"]].mean(0) for form in _activities()])
    poles = np.zeros(len(NAMES), np.float32)
    poles[NAMES.index("blissful")], poles[NAMES.index("hostile")] = 1, -1
    found = np.cov(said.T) @ np.cov(said.T) @ poles
    return (found / np.linalg.norm(found)).astype(np.float32)
