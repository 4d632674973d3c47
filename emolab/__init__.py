"""emolab: a workbench for the emotion vectors of language models.

>>> import emolab as el
>>> len(el.emotions())
171

The names below are the vocabulary of the notebooks; the modules hold the rest. Imports are lazy, so that
`import emolab` costs nothing.
"""

from importlib import import_module

_HOME = {
    "DEFAULT": "model",
    "EmolabError": "errors",
    "EmotionVectors": "vectors",
    "HeldOut": "extraction",
    "Readout": "readout",
    "Story": "data",
    "Subject": "model",
    "Watch": "watching.watch",
    "brevity_scope": "widgets.brevity_scope",
    "compare": "agreement",
    "concept": "conceive",
    "emotion_map": "widgets.emotion_map",
    "emotions": "data",
    "export": "files",
    "extract": "extraction",
    "load": "model",
    "load_card": "card",
    "load_vectors": "files",
    "logit_lens": "lens",
    "neutral": "data",
    "norms": "data",
    "plan": "planning",
    "prompt_lab": "widgets.prompt_lab",
    "replication_card": "card",
    "prompts": "data",
    "read": "activations",
    "read_log": "watching.log",
    "senses": "data",
    "steer": "steering",
    "steering_desk": "widgets.steering_desk",
    "stories": "data",
    "strength_finder": "experiments.effect",
    "watch_chat": "widgets.watch_chat",
}
__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'emolab' has no attribute {name!r}")
    return getattr(import_module(f"emolab.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
