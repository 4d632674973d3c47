"""The texts and norms in `data/` are what `data/README.md` says. Nothing here needs a model.

Checks gather every offender before they fail, so that one run shows all that is to be repaired.
"""

import re
import unicodedata
from collections import Counter
from itertools import combinations, product

import pandas as pd
import pytest

from emolab import data

# Words in a text, smallest and largest, as the data card states them.
WORDS = {"stories": (80, 130), "implicit": (108, 134), "implicit_second": (111, 145), "neutral": (104, 131)}
EMOTIONS = {"stories": 171, "implicit": 171, "implicit_second": 32}
# Sentences of five words or more that occur more than once in a corpus, at most.
REPEATED = {"stories": 36, "implicit": 8, "implicit_second": 0, "neutral": 0}
# The corpora have different jobs, so they share no text, nor even this many words in a row.
SHARED_RUN = 10

# Forms of an emotion word that cutting its ending does not reach; each counts as the start of a word.
RELATED = {
    "angry": "anger", "ashamed": "shame", "at ease": "easi easy", "awestruck": "awe awed awesom",
    "bored": "boring", "defiant": "defy", "dependent": "depend", "desperate": "despair",
    "disoriented": "orient", "dispirited": "spirit", "dumbstruck": "dumb", "energized": "energ",
    "enraged": "rage raging", "envious": "envy", "furious": "fury", "grateful": "gratitude",
    "grief-stricken": "griev", "hateful": "hating hatred", "heartbroken": "broken heartbreak",
    "hope": "hoping", "hopeful": "hoping", "horrified": "horror", "impatient": "patien",
    "indifferent": "indifferen", "joyful": "joy joyous rejoic", "lazy": "lazi", "lonely": "lonesome",
    "loving": "love", "mad": "madden madly madness", "mystified": "myster", "on edge": "edgi edgy",
    "patient": "patien", "proud": "pride", "relieved": "relief", "sad": "sadden sadder saddest sadly sadness",
    "scared": "scary", "shaken": "shake shaki shook", "skeptical": "scept", "stuck": "stick",
    "suspicious": "suspect", "terrified": "terror", "tired": "tire tiri", "trapped": "trap",
    "uneasy": "ease easi easy", "unhappy": "happi happy", "unnerved": "nerve", "unsettled": "settl",
    "valiant": "valor valour", "vengeful": "aveng reveng", "worn out": "wear wore",
}  # fmt: skip
ENDING = "istic|ical|etic|atic|able|less|ful|ous|ive|ant|ate|ied|ing|ic|al|ed|y|e"
CARRIES_NO_FEELING = {"at", "on", "out", "self"}  # in 'at ease', 'on edge', 'worn out', 'self-critical'

KNOWN_LEAKS = {  # (emotion, part, word)
    # "everything that I had been was broken in pieces": half of the compound, and an everyday word
    "stories": {("heartbroken", "c03", "broken")},
}

# The checker has to find these forms, and leave these neighbours alone.
FORMS = {
    "anxious": "anxiously", "angry": "anger angrily", "ashamed": "shame", "at ease": "ease easily",
    "bored": "boredom boring", "calm": "calmly", "ecstatic": "ecstasy", "empathetic": "empathy",
    "furious": "fury", "guilty": "guilt", "hope": "hoping hopeful", "hysterical": "hysteria",
    "joyful": "joy joyously", "kind": "kindness", "lazy": "laziness", "lonely": "loneliness",
    "loving": "loved", "mad": "madness", "miserable": "misery", "nervous": "nerves", "on edge": "edge edgy",
    "optimistic": "optimism", "proud": "pride", "relieved": "relief", "sad": "sadness",
    "self-critical": "criticised", "serene": "serenity", "suspicious": "suspected", "tense": "tension",
    "terrified": "terror", "tired": "tiring", "vigilant": "vigil", "worn out": "worn", "worried": "worry",
}  # fmt: skip
NEIGHBOURS = {
    "bored": "border born", "content": "continue", "hope": "hop shop", "joyful": "joystick", "mad": "made",
    "on edge": "on", "sad": "saddle", "self-confident": "self", "terrified": "terribly",
    "unhappy": "happened", "worn out": "out",
}  # fmt: skip

NEUTRAL_KINDS = {"facts", "how-to", "report", "dialogue", "code", "work", "narrative"}  # and the settings
# Where a neutral text uses one of the 171 words in a sense that is no feeling.
HARMLESS = (
    "of this kind", "a kind of", "which kind", "what kind",  # a sort
    "kind regards",  # the end of an office letter
    "the content reaches",  # what a web page holds
    "the muscle is relaxed",  # in the eye
    "stuck it on",  # a label
    "on edge in a row",  # dominoes
)  # fmt: skip

SETS = {  # rows, keys
    "activities": (64, "category text"),
    "concepts": (36, "emotion part genre pov text"),
    "continuations": (48, "id emotion emotional neutral continuation"),
    "danger_safe": (40, "id danger safe"),
    "denials": (44, "id kind emotion text sincere plain"),
    "dialogues": (48, "id user_state assistant_state turns"),
    "dilemmas": (64, "id kind desperate calm question honest harmful"),
    "scenarios": (72, "id emotion text"),
    "setbacks": (24, "id high low news"),
    "switching": (96, "id kind segments"),
}
PAIRS = {  # two versions of one thing: how many words their lengths may differ by
    ("continuations", "emotional", "neutral"): 4,
    ("danger_safe", "danger", "safe"): 2,
    ("denials", "text", "sincere"): 5,
    ("denials", "text", "plain"): 3,
    ("dilemmas", "desperate", "calm"): 6,
    ("dilemmas", "honest", "harmful"): 2,
    ("setbacks", "high", "low"): 3,
}

corpora = pytest.mark.parametrize("name", data.CORPORA)
all_texts = pytest.mark.parametrize("name", WORDS)


def texts(name: str) -> list[str]:
    return data.neutral() if name == "neutral" else [story.text for story in data.stories(name)]


def parts(name: str) -> pd.DataFrame:
    table = pd.read_csv(data.DATA / "parts.tsv", sep="\t")
    return table[table.file == name].set_index("part")


def raw(name: str) -> pd.DataFrame:
    """A corpus with the columns that `emolab.data` leaves out."""
    return pd.read_json(data.DATA / f"{name}.jsonl", lines=True)


def leaks(emotion: str, text: str) -> list[str]:
    """Words of `text` that give `emotion` away: its own word, its stem, or a related form.

    >>> leaks("sleepy", "She slept, she would sleep, sleepily.")
    ['sleep', 'sleepily']
    """
    pieces = [piece for piece in re.split("[ -]", emotion) if piece not in CARRIES_NO_FEELING]
    stems = [re.sub(f"(?<=....)({ENDING})$", "", piece) for piece in pieces]
    stems += RELATED.get(emotion, "").split()
    starts = "|".join(rf"{stem}\w*" if len(stem) > 3 else rf"{stem}\b" for stem in stems)
    return re.findall(rf"\b(?:{starts})", text.lower())


def sentences(text: str) -> list[str]:
    """The sentences of five words or more."""
    return [found for found in re.split(r"(?<=[.!?])\s+", text) if len(found.split()) >= 5]


def runs(name: str) -> set[tuple[str, ...]]:
    """All runs of `SHARED_RUN` words in a corpus, without case and punctuation."""
    words = (re.findall(r"\w+", text.lower()) for text in texts(name))
    return {tuple(text[i : i + SHARED_RUN]) for text in words for i in range(len(text) - SHARED_RUN + 1)}


def strings(value: object) -> list[str]:
    """Every string inside a row of a prompt set."""
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for each in inside for found in strings(each)]


def unclean(text: str, allowed: str = "") -> bool:
    """Whether there is space at either end, or a control or format character that is not in `allowed`."""
    return text != text.strip() or any(
        unicodedata.category(character).startswith("C") for character in text if character not in allowed
    )


def in_emotion(row: dict) -> list[tuple[str, str]]:
    """(emotion, text) of the passages of a prompt set that show an emotion without its word."""
    if "segments" in row:
        return [(part["state"], part["text"]) for part in row["segments"] if part["state"] != "neutral"]
    if "turns" in row:
        return [(row[f"{turn['role']}_state"], turn["text"]) for turn in row["turns"]]
    return [(row["emotion"], row.get("emotional") or row["text"])]


# ---------------------------------------------------------------- the list of emotions, the norms


def test_171_emotions_with_a_sense_each():
    assert len(data.emotions()) == len(set(data.emotions())) == 171
    assert list(data.emotions()) == sorted(data.emotions())
    assert data.senses().str.strip().ne("").all() and data.senses().is_unique


def test_norms_cover_45_of_the_words_within_their_scale():
    norms = data.norms()
    means, deviations = norms[["pleasure", "arousal", "dominance"]], norms.filter(like="_sd")
    assert norms.index.is_unique and set(norms.index) <= set(data.emotions())
    assert means.shape == deviations.shape == (45, 3)
    assert means.abs().le(1).all(axis=None)
    assert (deviations.gt(0) & deviations.lt(1)).all(axis=None)
    assert means.pleasure["happy"] > 0.5 > -0.5 > means.pleasure["sad"]  # the columns are not mixed up
    assert means.arousal["terrified"] > 0.5 > -0.5 > means.arousal["bored"]
    assert means.dominance["triumphant"] > 0.5 > -0.4 > means.dominance["terrified"]


# ---------------------------------------------------------------- the stories


@corpora
def test_every_emotion_once_in_every_part(name):
    cells = Counter((story.emotion, story.part) for story in data.stories(name))
    found = sorted({story.emotion for story in data.stories(name)})
    settings = parts("implicit" if name == "implicit_second" else name)
    assert len(found) == EMOTIONS[name] and set(found) <= set(data.emotions())
    assert len(settings) == 12
    assert cells == Counter(product(found, settings.index))


@corpora
def test_genre_is_the_one_of_the_part(name):
    settings, rows = parts("implicit" if name == "implicit_second" else name), raw(name)
    assert (rows.genre == rows.part.map(settings.genre)).all()
    assert set(rows.pov) <= {"first", "second", "third"}


@all_texts
def test_length(name):
    counts = [len(text.split()) for text in texts(name)]
    assert (min(counts), max(counts)) == WORDS[name], "the data card states these two figures"


@all_texts
def test_no_text_twice_and_few_sentences(name):
    assert [text for text, times in Counter(texts(name)).items() if times > 1] == []
    times = Counter(sentence for text in texts(name) for sentence in sentences(text))
    repeated = [sentence for sentence, count in times.items() if count > 1]
    assert len(repeated) <= REPEATED[name], repeated


@all_texts
def test_clean_characters(name):
    assert [text for text in texts(name) if unclean(text, allowed="\n" if name == "neutral" else "")] == []


@corpora
def test_no_story_names_its_emotion(name):
    stories = data.stories(name)
    found = {(story.emotion, story.part, word) for story in stories for word in leaks(story.emotion, story.text)}
    assert found == KNOWN_LEAKS.get(name, set())


@pytest.mark.parametrize("one, other", combinations(WORDS, 2))
def test_train_choose_and_test_share_no_text(one, other):
    assert runs(one) & runs(other) == set()


# ---------------------------------------------------------------- the checker of leaks itself


def test_leak_checker_finds_every_planted_emotion_word():
    planted = {emotion: f"She was {emotion.upper()}, then left." for emotion in data.emotions()}
    assert [emotion for emotion, text in planted.items() if not leaks(emotion, text)] == []


def test_leak_checker_finds_related_forms():
    planted = [(emotion, form) for emotion, forms in FORMS.items() for form in forms.split()]
    assert [(e, form) for e, form in planted if leaks(e, f"He thought of {form}.") != [form]] == []


def test_leak_checker_leaves_neighbours_alone():
    planted = [(emotion, word) for emotion, words in NEIGHBOURS.items() for word in words.split()]
    assert [(e, word) for e, word in planted if leaks(e, f"He thought of {word}.")] == []


def test_leak_checker_uses_words_of_the_list():
    assert set(RELATED) | set(FORMS) | set(NEIGHBOURS) <= set(data.emotions())


# ---------------------------------------------------------------- the neutral texts


def test_neutral_texts_are_enough_and_of_several_kinds():
    kinds = raw("neutral").kind.value_counts()
    assert len(data.neutral()) == kinds.sum() == 320
    settings = {f"setting {part}" for part in parts("implicit").index}
    assert set(kinds.index) == settings | NEUTRAL_KINDS
    assert kinds.min() >= 10


def test_neutral_texts_name_no_emotion():
    words = re.compile(rf"\b({'|'.join(data.emotions())})\b")
    rest = [re.sub("|".join(HARMLESS), "", text.lower()) for text in data.neutral()]
    assert [(found.group(), text) for text in rest for found in words.finditer(text)] == []


# ---------------------------------------------------------------- the prompt sets


def test_every_prompt_set_is_known_here():
    assert {path.stem for path in (data.DATA / "sets").iterdir()} == set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_prompt_set_has_its_rows_and_keys(name):
    count, keys = SETS[name]
    rows = data.prompts(name)
    assert len(rows) == count
    assert {" ".join(row) for row in rows} == {keys}
    assert len({row.get("id", row.get("text")) for row in rows}) == count
    assert [text for row in rows for text in strings(row) if not text or unclean(text)] == []


@pytest.mark.parametrize("name, column, each", [
    ("activities", "category", 8), ("concepts", "emotion", 12), ("continuations", "emotion", 4),
    ("dialogues", "user_state", 6), ("dialogues", "assistant_state", 6), ("scenarios", "emotion", 3),
])  # fmt: skip
def test_prompt_set_is_balanced(name, column, each):
    assert set(Counter(row[column] for row in data.prompts(name)).values()) == {each}


@pytest.mark.parametrize("name", ["continuations", "dialogues", "scenarios", "switching"])
def test_prompt_set_shows_emotions_of_the_list_and_does_not_name_them(name):
    shown = [passage for row in data.prompts(name) for passage in in_emotion(row)]
    assert {emotion for emotion, _ in shown} <= set(data.emotions())
    assert [(emotion, found, text) for emotion, text in shown for found in leaks(emotion, text)] == []


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_versions_have_about_the_same_length(pair):
    name, one, other = pair
    differences = [len(row[one].split()) - len(row[other].split()) for row in data.prompts(name)]
    assert max(map(abs, differences)) <= PAIRS[pair]
    assert abs(sum(differences)) / len(differences) < 2, "one version is longer throughout"


def test_concepts_are_new_words_in_the_parts_of_the_stories():
    rows = data.prompts("concepts")
    concepts = sorted({row["emotion"] for row in rows})
    assert concepts == ["confused", "curious", "disciplined"]
    assert not set(concepts) & set(data.emotions())
    cells = Counter((row["emotion"], row["part"]) for row in rows)
    assert cells == Counter(product(concepts, parts("stories").index))
    assert [(row["emotion"], found) for row in rows for found in leaks(row["emotion"], row["text"])] == []


def test_switching_marks_its_borders():
    patterns = Counter()
    for row in data.prompts("switching"):
        states = [segment["state"] for segment in row["segments"]]
        patterns[row["kind"]] += 1
        if row["kind"] == "neutral-emotion-neutral":
            assert states[0] == states[2] == "neutral" != states[1] and len(states) == 3, row["id"]
        else:
            assert len(set(states)) == len(states) == 2 and "neutral" not in states, row["id"]
    assert patterns == {"neutral-emotion-neutral": 60, "emotion-emotion": 36}


def test_dialogues_take_turns():
    order = {tuple(turn["role"] for turn in row["turns"]) for row in data.prompts("dialogues")}
    assert order == {("user", "assistant", "user", "assistant")}
