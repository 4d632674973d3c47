"""Plain transformers by `AutoModel`, which leaves out the unembedding: no logits are computed."""

from functools import partial

from transformers import AutoModel

from benchmarks.peers.protocol import serve
from benchmarks.peers.transformers import load

if __name__ == "__main__":
    serve(partial(load, loader=AutoModel))
