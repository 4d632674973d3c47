"""Reading on Ray: what one machine reads, whoever dies on the way."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import WORDS, tiny_subject
from test_extraction import EMOTIONS, make, stories

import emolab as el
from emolab import cluster
from emolab.cluster import ClusterReader, connected
from emolab.data import survey
from emolab.sums import Sums

MANY = [story for seed in range(12) for story in stories(EMOTIONS, "abcdefgh", seed=seed)]  # 576


@pytest.fixture(scope="module")
def ray():
    """Ray on this machine, with two workers."""
    ray = pytest.importorskip("ray")
    there = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=3, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": {"PYTHONPATH": there}})
    yield ray
    ray.shutdown()


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(cluster, "BLOCK", 8)


def workers() -> list[int]:
    """Process numbers of the workers that hold the model."""
    names = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [int(number) for number, name in names.items() if b"MapWorker" in name]


@pytest.mark.skipif(sys.platform != "linux", reason="finds the workers in /proc")
def test_the_same_as_on_one_machine_though_a_worker_is_killed(ray, small_blocks, tiny, cache, monkeypatch):
    here = make(tiny, MANY)
    killed = []
    merge = Sums.merge

    def merge_and_kill(self, other):
        merge(self, other)
        if not killed and self.n < len(MANY):
            killed.append(workers()[0])
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(Sums, "merge", merge_and_kill)
    there = make(tiny, MANY, cluster="auto")
    assert killed
    assert there.emotions == here.emotions and (there.counts == here.counts).all()
    assert (there.chosen_layer, there.metric) == (here.chosen_layer, here.metric)
    assert there.info["n_tokens"] == here.info["n_tokens"] and there.info["corpus"] == here.info["corpus"]
    for name in ("vectors", "probes", "mean", "residual_norm"):
        np.testing.assert_allclose(getattr(there, name), getattr(here, name), rtol=1e-4, atol=1e-5)
    for role in ("train", "choose"):
        ours, theirs = (getattr(side.evidence, role) for side in (here, there))
        assert (ours.emotions == theirs.emotions).all() and (ours.parts == theirs.parts).all()
        np.testing.assert_allclose(theirs.means, ours.means, atol=1e-5)


def test_a_worker_that_can_not_go_on_says_why(ray, small_blocks, cache):
    broken = tiny_subject()
    broken.model.model.layers[2].mlp.down_proj.weight.data.fill_(float("nan"))
    with pytest.raises(el.EmolabError, match="not finite from layer 3"):
        make(broken, cluster="auto")


def test_a_file_is_read_by_the_workers(ray, small_blocks, tiny, cache, tmp_path):
    import pandas as pd

    path = tmp_path / "stories.parquet"
    pd.DataFrame([vars(story) for story in MANY[:96]]).to_parquet(path)
    reader = ClusterReader(tiny, (1, 4), progress=False)
    with connected("auto"):
        sums = reader.sums(el.data.StoryFile(path), survey(MANY[:96]), offset=10, pooling="token")
    assert sums.n == 96 and sums.tokens == sum(len(tiny.encode(story.text)) for story in MANY[:96])
    assert sums.cells.sum() == sums.tokens - 960 and len(sums.sample) == len({story.key for story in MANY[:96]})


def test_a_model_spread_over_devices_can_not_be_copied(tiny, monkeypatch):
    monkeypatch.setattr(tiny.model, "hf_device_map", {"a": 0, "b": 1}, raising=False)
    with pytest.raises(el.EmolabError, match="without device_map"):
        cluster._portable(tiny)


def test_no_cluster_and_no_ray(tiny, cache, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(el.EmolabError, match=r"no Ray cluster answers at '127\.0\.0\.1:1'"), connected("127.0.0.1:1"):
        pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(el.EmolabError, match=r"pip install 'emolab\[cluster\]'"):
        make(tiny, [el.Story(name, " ".join(WORDS[:30])) for name in EMOTIONS], cluster="auto")
