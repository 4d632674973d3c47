"""repeng, at another job: it reads the last token of each text, and gives no means over tokens.

Its documented call, `ControlVector.train`, keeps only one direction a layer; this is the reading inside it. The
last layer has the final norm applied.
"""

import numpy as np
from repeng.extract import batched_get_hiddens
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.protocol import BATCH, Job, Work, serve


def load(work: Work, dtype) -> Job:
    model = AutoModelForCausalLM.from_pretrained(work.folder, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(work.folder)

    def job(stories, layers):
        blocks = [layer - 1 for layer in layers]
        states = batched_get_hiddens(model, tokenizer, work.texts[:stories], blocks, BATCH)
        return np.stack([states[block] for block in blocks], 1)

    return job


if __name__ == "__main__":
    serve(load, "repeng")
