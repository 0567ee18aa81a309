from __future__ import annotations

import dataclasses
import pickle
from collections import Counter

import pytest

from geomkit.enquiry import PROBES
from geomkit.errors import StoreError, UsageError
from geomkit.store.run import Run
from geomkit.types import Findings
from probes.config import ProbeConfig
from probes.suite import probe_run, probe_site
from tests.synthetic_run import NARROW, WIDE, Geometry, write_run

SITES = ("block_01", "final_norm")
QUICK = ProbeConfig(sites=SITES, readout="ridge")

OF_PART = {
    "linear": ("probes", "probe_differences"),
    "mdl": ("measurements", "differences"),
    "separability": ("measurements", "differences"),
    "binding": ("bindings",),
    "drift": ("drifts",),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three checkpoints, so that there are two later ones."""
    path = tmp_path_factory.mktemp("suite") / "run"
    geometries = {"base": NARROW, "lco": WIDE, "more": Geometry(cone=3.0, gap=2.0)}
    return write_run(path, geometries, scenes=44)


@pytest.fixture(scope="module")
def found(run):
    return probe_run(run, QUICK)


def test_every_part_reports_and_names_what_it_is_of(found):
    for name in dataclasses.fields(Findings):
        records = getattr(found, name.name)
        assert records, name.name
        assert {r.site for r in records} == set(SITES)
    assert {m.metric.partition(":")[0] for m in found.measurements} == {
        "mdl",
        "modality_separability",
    }


def test_sites_alone_in_any_order_are_the_whole_run(run, found):
    alone = {site: probe_site(run, site, QUICK) for site in reversed(SITES)}
    assert Findings.of(alone[site] for site in SITES) == found


def test_findings_survive_a_process(found):
    assert pickle.loads(pickle.dumps(found)) == found


def test_every_later_checkpoint_stands_against_the_first(found):
    ends = {("base", "lco"), ("base", "more")}
    for records in (found.probe_differences, found.differences, found.bindings, found.drifts):
        assert {(r.before, r.after) for r in records} == ends


@pytest.mark.parametrize("part", PROBES)
def test_a_part_alone_says_what_it_says_in_company(run, found, part):
    config = dataclasses.replace(QUICK, sites=("final_norm",), parts=(part,))
    alone = probe_site(run, "final_norm", config)
    for field in dataclasses.fields(Findings):
        records = getattr(alone, field.name)
        if field.name in OF_PART[part]:
            assert records
            assert set(records) <= set(getattr(found, field.name))
        else:
            assert records == ()


def test_states_are_read_once_for_every_part(run, monkeypatch):
    reads = Counter()
    states = Run.states

    def counted(self, checkpoint, site, *asked):
        reads[checkpoint, site] += 1
        return states(self, checkpoint, site, *asked)

    monkeypatch.setattr(Run, "states", counted)
    probe_site(run, "final_norm", QUICK)
    assert reads == {(name, "final_norm"): 1 for name in ("base", "lco", "more")}


def test_some_rows_only(run):
    """Whole scenes: what is left out must not be seen by any part."""
    kept = [r.index for r in run.plan.rows if int(r.group[-3:]) < 30]
    found = probe_site(run, "final_norm", QUICK, rows=kept)
    assert {p.n_train + p.n_test for p in found.probes if p.train_on == p.test_on} <= {30, 60}
    assert max(b.n + b.n_fit for b in found.bindings) <= 60


def test_one_checkpoint_has_values_and_nothing_to_compare(tmp_path):
    alone = write_run(tmp_path / "run", {"base": WIDE}, scenes=30)
    found = probe_site(alone, "final_norm", QUICK)
    assert found.probes
    assert found.measurements
    compared = found.probe_differences, found.differences, found.bindings, found.drifts
    assert compared == ((), (), (), ())


def test_of_nothing_there_are_no_findings():
    assert Findings.of([]) == Findings()


def test_what_does_not_exist_is_refused(run):
    with pytest.raises(UsageError, match=r"probe parts of linear, mdl, .*, got 'bindings'"):
        ProbeConfig(parts=("bindings",))
    with pytest.raises(UsageError, match="Expected readout multinomial or ridge, got 'svm'"):
        ProbeConfig(readout="svm")
    with pytest.raises(UsageError, match="got 'block_77'; it has embed"):
        probe_run(run, ProbeConfig(sites=("block_77",)))
    with pytest.raises(StoreError, match="block_77"):
        probe_site(run, "block_77", QUICK)
