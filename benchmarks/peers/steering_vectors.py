"""steering-vectors: `record_activations`, without copies of what it records.

It wants transformers 4, which looks for the rotary base where transformers 5 no longer writes it.
"""

from steering_vectors import record_activations
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.peers.protocol import Job, Work, in_batches, serve


def load(work: Work, dtype) -> Job:
    config = AutoConfig.from_pretrained(work.folder)
    config.rope_theta = config.rope_parameters["rope_theta"]
    model = AutoModelForCausalLM.from_pretrained(work.folder, config=config, dtype=dtype).eval()

    def read(ids, mask, layers):
        blocks = [layer - 1 for layer in layers]
        with record_activations(model, layer_nums=blocks, clone_activations=False) as recorded:
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        return (recorded[block][0] for block in blocks)

    return in_batches(work, read)


if __name__ == "__main__":
    serve(load, "steering-vectors")
