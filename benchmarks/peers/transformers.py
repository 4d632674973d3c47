"""Plain transformers: `output_hidden_states=True`. There the last layer has the final norm applied."""

from transformers import AutoModelForCausalLM

from benchmarks.peers.protocol import Job, Work, in_batches, serve


def load(work: Work, dtype, loader=AutoModelForCausalLM) -> Job:
    model = loader.from_pretrained(work.folder, dtype=dtype).eval()

    def read(ids, mask, layers):
        output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        return (output.hidden_states[layer] for layer in layers)

    return in_batches(work, read)


if __name__ == "__main__":
    serve(load)
