"""transformer-lens: `run_with_cache` of its TransformerBridge, which keeps the weights as they are.

It caches the residual stream only, computes no logits, and stops after the deepest layer.
"""

from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoTokenizer

from benchmarks.peers.protocol import Job, Work, in_batches, serve


def load(work: Work, dtype) -> Job:
    tokenizer = AutoTokenizer.from_pretrained(work.folder)
    bridge = TransformerBridge.boot_transformers(work.folder, dtype=dtype, tokenizer=tokenizer, device="cpu")

    def read(ids, mask, layers):
        names = [f"blocks.{layer - 1}.hook_resid_post" for layer in layers]
        _, cache = bridge.run_with_cache(
            ids, attention_mask=mask, names_filter=names, return_type=None, stop_at_layer=max(layers)
        )
        return (cache[name] for name in names)

    return in_batches(work, read)


if __name__ == "__main__":
    serve(load, "transformer-lens")
