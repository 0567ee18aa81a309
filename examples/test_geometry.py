"""Geometry as a test suite: run it against a captured run.

    geomkit demo
    pytest examples/test_geometry.py --geomkit-run geomkit-demo/run

Training saw text only. What is claimed is geometry: the states of images and sounds became more
isotropic too. Nothing is claimed about retrieval, which is another question.
"""

import pytest

from geomkit.assertions import assert_improved, assert_transfers


@pytest.mark.geom
def test_text_is_more_isotropic(geomkit_run):
    assert_improved(geomkit_run, "mean_cosine", "text")


@pytest.mark.geom
def test_geometry_transfers_to_unseen_modalities(geomkit_run):
    assert_transfers(geomkit_run, "mean_cosine", to=("image", "audio"))


@pytest.mark.geom
@pytest.mark.parametrize("modality", ["image", "audio"])
def test_unseen_states_fill_the_sphere_more_evenly(geomkit_run, modality):
    assert_improved(geomkit_run, "uniformity", modality)
