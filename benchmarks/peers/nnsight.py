"""nnsight: block outputs saved within a trace, which stops after the deepest of them."""

import nnsight

from benchmarks.peers.protocol import Job, Work, in_batches, serve


def load(work: Work, dtype) -> Job:
    model = nnsight.TransformersModel(work.folder, task="text-generation", dtype=dtype, dispatch=True)

    def read(ids, mask, layers):
        with model.trace({"input_ids": ids, "attention_mask": mask}) as tracer:
            taken = nnsight.save([])
            for layer in layers:
                taken.append(model.model.layers[layer - 1].output)
            tracer.stop()
        return taken

    return in_batches(work, read)


if __name__ == "__main__":
    serve(load, "nnsight")
