"""Stories that a model writes itself from a description, where it can; where it can't, a refusal that says why.

Whether it can is tested before anything is made of its stories: it writes about known emotions first, from their
glosses, and its stories must be told apart by the emotion vectors. The rule is fixed here and sees no concept.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from emolab import data
from emolab.activations import mean_activations
from emolab.errors import EmolabError
from emolab.model import Subject
from emolab.vectors import EmotionVectors

TRIED = ("afraid", "calm", "disgusted", "furious", "grief-stricken", "joyful")  # far apart; two stories each
RIGHT = 0.5  # of the trial stories must be named right among six: by guessing 1/6, and less than 1 % reach a half
NEW_TOKENS = 64
SHORTEST = 35  # words
VARIED = 0.8  # of the three-word sequences of a story must be different ones
ENDINGS = ("ation", "ious", "ness", "ment", "ful", "ous", "ing", "ity", "ed", "ly", "y", "e")
WANTED, WRITTEN = 6, 14  # usable stories needed, stories written
REMEDY = "write 6 to 20 short texts yourself and give them as `texts`, or use a larger instruction-tuned model"


def write(subject: Subject, vectors: EmotionVectors, name: str, description: str, seed: int = 0) -> list[str]:
    """At least six stories by the model about a person in a described state, without the word for it.

    Raises EmolabError, with the reason, if its stories about known emotions are not told apart, or too few of those
    about the description are long enough, free of the word, and not repetitive.
    """
    if not isinstance(description, str) or len(description.split()) < 3:
        raise EmolabError(f"describe the state in a few words, such as 'keeps to a plan made before'; {description!r}")
    senses = data.senses()
    tried = [name for name in TRIED if name in vectors.emotions]
    if len(tried) < len(TRIED):
        raise EmolabError(f"the trial of the model's own stories needs vectors of {', '.join(TRIED)}; {REMEDY}")
    twice = [name for name in tried for _ in range(2)]
    trial = _stories(subject, [senses[name] for name in twice], seed)
    right = told_apart(subject, vectors, twice, trial)
    if right < RIGHT:
        raise EmolabError(
            f"{subject.name} can't write usable stories: of {len(trial)} that it wrote about six known emotions "
            f"{right:.0%} show the right one, at least {RIGHT:.0%} are needed (guessing: {1 / 6:.0%}); {REMEDY}"
        )
    written = _stories(subject, [description] * WRITTEN, seed + 1)
    faults = [fault(text, name) for text in written]
    kept = [text for text, wrong in zip(written, faults, strict=True) if not wrong]
    if len(kept) < WANTED:
        why = ", ".join(f"{count} {wrong}" for wrong, count in Counter(filter(None, faults)).items())
        raise EmolabError(
            f"only {len(kept)} of {len(written)} stories that {subject.name} wrote are usable ({why}); {REMEDY}"
        )
    return kept


def told_apart(subject: Subject, vectors: EmotionVectors, names: Sequence[str], texts: Sequence[str]) -> float:
    """Share of texts whose emotion scores highest among those named; faulty texts count as wrong."""
    sound = [i for i, (name, text) in enumerate(zip(names, texts, strict=True)) if not fault(text, name)]
    if len(sound) < 2:
        return 0.0
    means = mean_activations(
        subject,
        [texts[i] for i in sound],
        layers=[vectors.chosen_layer],
        offset=vectors.info.get("offset", 10),
        progress=None,
    ).means[:, 0]
    choices = list(dict.fromkeys(names))
    directions = vectors.directions()[[vectors.index(name) for name in choices]]
    scores = (means - means.mean(0)) @ directions.T  # [text, emotion]
    hits = [choices[best] == names[i] for best, i in zip(scores.argmax(1), sound, strict=True)]
    return float(np.sum(hits) / len(texts))


def fault(text: str, name: str) -> str:
    """What makes a story unusable ('too short', 'says the word', 'repeats itself'), or nothing.

    >>> fault("He was disciplined. " * 20, "disciplined")
    'says the word'
    """
    words = re.findall(r"\w+", text.lower())
    if len(words) < SHORTEST:
        return "too short"
    if any(word.startswith(stem(name)) for word in words):
        return "says the word"
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return "repeats itself" if len(set(threes)) < VARIED * len(threes) else ""


def stem(name: str) -> str:
    """The beginning that a word shares with its relatives, roughly.

    >>> stem("disciplined"), stem("curious"), stem("calm"), stem("grief-stricken")
    ('disciplin', 'curi', 'calm', 'grief')
    """
    word = re.split(r"\W+", name.lower().strip())[0]
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word


def _stories(subject: Subject, descriptions: Sequence[str], seed: int) -> list[str]:
    prompts = [
        subject.chat(
            "Write a short story of about 70 words in plain language. Somebody in an everyday place is in this state "
            f"of mind from the first sentence to the last: {description}. Let it show in what they do and think. Write "
            "nothing but the story."
        )
        for description in descriptions
    ]
    try:
        return subject.generate(prompts, NEW_TOKENS, seed=seed, temperature=0.8, top_p=0.95)
    except EmolabError as error:
        raise EmolabError(f"{subject.name} can't write stories here ({error}): {REMEDY}") from None
