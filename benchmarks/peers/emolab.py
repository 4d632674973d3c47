"""emolab itself, which gets texts, so that tokenising counts."""

import emolab as el
from benchmarks.peers.protocol import Job, Work, serve
from emolab.activations import mean_activations


def load(work: Work, dtype) -> Job:
    subject = el.load(work.folder, dtype=dtype)

    def job(stories, layers):
        texts = work.texts[:stories]
        return mean_activations(subject, texts, layers=layers, offset=work.offset, progress=None).means

    return job


if __name__ == "__main__":
    serve(load, "emolab")
