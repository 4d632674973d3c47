"""The verdict rule, and the nulls of interventions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import emolab as el
from emolab.claims import VERDICTS, Claim
from emolab.nulls import KINDS, random_directions, subspace


def claim(**numbers) -> Claim:
    return Claim("danger raises fear", "reading", "section 1", "share", **numbers)


@given(st.floats(-5, 5), st.floats(0, 3), st.floats(-5, 5), st.floats(-5, 5))
def test_a_verdict_needs_the_interval_and_the_null(value, width, chance, null):
    found = claim(value=value, low=value - width, high=value + width, chance=chance, null=null).verdict
    passed = (value - width > chance) + (value > null)
    assert found == {2: "replicates", 1: "weak", 0: "does not replicate"}[passed]


def test_what_was_not_measured_does_not_replicate():
    assert claim().verdict == claim(value=np.nan, low=np.nan, null=0.0).verdict == VERDICTS[2]
    assert claim(value=9.0, low=8.0, null=1.0, reason="a base model").verdict == VERDICTS[3]
    assert claim(value=1.0, low=0.5, null=0.2).row()["verdict"] == "replicates"
    with pytest.raises(el.EmolabError, match="not one of"):
        Claim("danger raises fear", "hearsay", "", "")


@pytest.mark.parametrize("kind", KINDS)
def test_random_directions_are_of_length_one_and_mean_nothing(subject, shipped, kind):
    found = random_directions(subject, shipped, 15, 40, kind)
    assert found.shape == (40, subject.d_model)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1)
    vectors = shipped.vectors[:, shipped.row(15)]
    inside = np.linalg.norm(found @ subspace(vectors, share=0.9).T, axis=1)
    assert inside.max() < 1e-5 if kind == KINDS[2] else inside.max() > 0.1
    assert (found == random_directions(subject, shipped, 15, 40, kind)).all()


def test_bad_kinds_and_layers(tiny, tiny_vectors):
    with pytest.raises(el.EmolabError, match="matched variance"):
        random_directions(tiny, tiny_vectors, 2, 3, "matched varance")
    with pytest.raises(el.EmolabError, match="layer 9"):
        random_directions(tiny, tiny_vectors, 9, 3)
