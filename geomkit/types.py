"""The frozen records that pass between stages, and nothing else.

    Sample -> Plan -> Activations -> Measurement, Difference, ProbeResult -> Analysis

Arrays put samples first: `(samples, dim)`. A number never travels alone: it carries its site,
modality, sample count, interval, chance level and the direction that counts as better. A missing
number is `None` with a note, never NaN.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Modality = Literal["text", "image", "audio", "video"]
Better = Literal["lower", "higher", "neither"]
Status = Literal["PASS", "FAIL", "WARN", "NOT RUN", "info"]

MODALITIES: tuple[Modality, ...] = ("text", "image", "audio", "video")
"""Canonical order; every table and legend follows it."""


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """Mono sound in memory: `samples` float32 in [-1, 1], `rate` in hertz."""

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """Moving pictures in memory: `frames` uint8 (frames, height, width, 3), `fps` of them a second.

    `seen` counts the frames that were decoded: more than are kept when a long video was thinned.
    """

    frames: NDArray[np.uint8]
    fps: float
    seen: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """Encoded media that are no file of their own (a cell of a table, a URL), read when wanted.

    A record holds the way to the bytes, never the bytes: ten thousand of them cost no memory.
    `read` raises OSError or SampleError when there are none.
    """

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One thing in the world, seen through one or more modalities under one id.

    `labels` are named by captions; `controls` are attributes that the media have but no caption
    ever names (the negative control). Samples of equal `group` count as the same thing: they are
    kept on one side of a split and are correct answers for each other in retrieval.
    """

    id: str
    text: str | None = None
    image: Any = None  # a Path, Stored, or a PIL image
    audio: Path | Stored | Waveform | None = None
    video: Path | Stored | Clip | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    controls: Mapping[str, str] = field(default_factory=dict)
    group: str = ""

    def modalities(self) -> tuple[Modality, ...]:
        """The modalities this sample has, in canonical order."""
        return tuple(m for m in MODALITIES if getattr(self, m) is not None)


@dataclass(frozen=True, slots=True)
class Row:
    """One forward pass to do: a sample in one modality. Pairs are rows of equal `id`."""

    index: int
    id: str
    modality: Modality
    content_sha: str
    group: str
    text: str = ""  # the caption of the sample, whatever the row's modality, for people to read
    labels: Mapping[str, str] = field(default_factory=dict)
    controls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every checkpoint of a run is shown: written first, hashed, never changed."""

    schema: str
    dataset: str
    rows: tuple[Row, ...]
    prompts: Mapping[str, str]  # modality -> instruction that follows the content
    poolings: tuple[str, ...]
    sites: tuple[str, ...]  # empty: every site of the decoder
    batches: tuple[tuple[int, ...], ...]  # row indexes; one modality a batch
    shard_batches: int  # how many batches make a shard
    store_dtype: str = "float32"  # what states are stored as; everything above sees float32
    options: tuple[tuple[str, str], ...] = ()  # flags that made it, where not the defaults

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, no spaces to argue about.

        A field at its default is left out: a plan from before the field keeps its bytes and hash.
        """
        return "".join(self._json())

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON: two captures are comparable when it is equal."""
        digest = hashlib.sha256()
        for piece in self._json():  # never whole: of many rows it is longer than they are
            digest.update(piece.encode())
        return digest.hexdigest()

    def _json(self) -> Iterator[str]:
        given = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }
        encoder = json.JSONEncoder(sort_keys=True, ensure_ascii=False, indent=1, default=_plain)
        return encoder.iterencode(given)


def _plain(value: Any) -> dict[str, Any]:
    """A row or a mapping as JSON takes it; what is inside has its own turn."""
    if isinstance(value, Row):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    return dict(value)


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """Where a captured checkpoint came from; `<checkpoint>/checkpoint.json` in the run folder."""

    name: str
    source: str
    revision: str
    architecture: str
    weights_sha: str
    decoder_sha: str
    towers_sha: str  # everything outside the decoder and the head
    adapter_sha: str  # empty when the checkpoint is no adapter
    merged: bool
    template_sha: str
    dtype: str
    attention: str
    sites: tuple[str, ...]
    dim: int
    versions: Mapping[str, str]
    gate: Mapping[str, Any]  # check -> {"passed": bool, "value": float | None, "tolerance": ...}
    training: Mapping[str, Any] = field(default_factory=dict)  # training.json of the adapter
    config_sha: str = ""  # of the model's configuration: what is computed with the weights
    processor_sha: str = ""  # of what rows were shown through; equal in every checkpoint of a run
    rendered: Mapping[str, str] = field(default_factory=dict)  # modality -> the prompt, as shown


@dataclass(frozen=True, slots=True, eq=False)
class Activations:
    """One checkpoint, site, pooling and modality: `states` float32 `(samples, dim)`, plan order."""

    checkpoint: str
    site: str
    pooling: str
    modality: Modality
    states: NDArray[np.float32]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval and how it was made."""

    low: float
    high: float
    level: float = 0.95
    method: str = ""
    groups: int = 0  # independent groups of rows (or folds of them) behind it; 0 when unknown


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number about one checkpoint at one site.

    `modality` is a modality ("image"), an unordered pair ("image-text") or a direction
    ("image->text"). `chance` is the value expected under the null, or the floor the metric can
    reach. `value` is None when the metric is not defined here; `note` then says why.
    """

    metric: str
    checkpoint: str
    site: str
    modality: str
    value: float | None
    interval: Interval | None
    chance: float | None
    better: Better
    n: int
    reference: str = ""
    note: str = ""
    chance_sd: float | None = None  # exact, under all pairings of the rows, where that is known


@dataclass(frozen=True, slots=True)
class Difference:
    """After minus before on the same samples, with one paired interval.

    `clear` is True when the interval excludes zero; `improved` says whether the sign is the
    better one (None when the metric has no better direction or the difference is not clear).
    `band` is wider: it holds at all sites of this metric and modality at once.
    """

    metric: str
    before: str
    after: str
    site: str
    modality: str
    value: float | None
    interval: Interval | None
    better: Better
    n: int
    note: str = ""
    band: Interval | None = None  # simultaneous over sites, by the max-statistic

    @property
    def clear(self) -> bool:
        """True when the interval excludes zero."""
        return self.interval is not None and (self.interval.low > 0 or self.interval.high < 0)

    @property
    def improved(self) -> bool | None:
        """True or False for a clear change in or against the better direction, else None."""
        if not self.clear or self.value is None or self.better == "neither":
            return None
        return (self.value > 0) == (self.better == "higher")


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A linear probe trained on one modality and tested on another (or on the same).

    `spoken` is False for the negative controls: attributes no caption ever names. `accuracy` and
    its interval are on held-out groups; `majority` answers the commonest training class;
    `control` is the accuracy after training on shuffled labels (after Hewitt and Liang 2019);
    `selectivity` = accuracy - control.
    """

    attribute: str
    spoken: bool
    train_on: Modality
    test_on: Modality
    checkpoint: str
    site: str
    accuracy: float | None
    interval: Interval | None
    majority: float
    chance: float
    control: float | None
    selectivity: float | None
    n_train: int
    n_test: int
    note: str = ""
    selectivity_interval: Interval | None = None  # paired, on the same held-out rows
    ceiling: float | None = None  # accuracy of the probe trained on `test_on` itself
    penalty: float | None = None
    uncentred: float | None = None  # accuracy when `test_on` keeps its own mean: the gap left in

    @property
    def guess(self) -> float:
        """The accuracy to beat: of the commonest training class, or of drawing a class by lot."""
        return max(self.majority, self.chance)


@dataclass(frozen=True, slots=True)
class Binding:
    """How much of what training did to one modality a map fitted on text rows foretells.

    `quantity` "r2" is the share of the variance of the change on held-out groups, 0 being the
    modality's own mean change; "r2_centred" is the same when the modality's own means are known,
    so the linear part alone; "reach" the share of the modality's variance, before, in the leading
    axes of text; any other is a metric, and the value the share of its change that foretold states
    show. `predictor` says what foretold: "text" (the map under test), "own" (fitted
    on the modality itself: the ceiling), "shift" (text's mean change), "turned" and "shuffled" (the
    floors: a random orthogonal map of equal strength, a map fitted on text rows dealt anew); or a
    paired difference, "text-own", "text-shift".
    """

    before: str
    after: str
    site: str
    modality: Modality
    quantity: str
    predictor: str
    value: float | None
    interval: Interval | None
    n_fit: int
    n: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the same rows moved between two checkpoints: one number of one site and modality.

    `chance` is its value for unrelated states; there is no better direction.
    """

    metric: str
    before: str
    after: str
    site: str
    modality: Modality
    value: float | None
    interval: Interval | None
    chance: float | None
    n: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What probes found at some sites, by kind; measurements are label bits and separability."""

    probes: tuple[ProbeResult, ...] = ()
    probe_differences: tuple[Difference, ...] = ()
    measurements: tuple[Measurement, ...] = ()
    differences: tuple[Difference, ...] = ()
    bindings: tuple[Binding, ...] = ()
    drifts: tuple[Drift, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[Findings]) -> Findings:
        """The records of all parts, in their order."""
        found = tuple(parts)
        return cls(**{f.name: sum((getattr(p, f.name) for p in found), ()) for f in fields(cls)})


@dataclass(frozen=True, slots=True)
class Transfer:
    """How much of the trained modality's change an untrained one shows, in one metric at one site.

    `ratio` is change in the untrained over change in the trained: 1 all of it, 0 none, below 0 the
    other way. Its interval takes both changes as uncertain and knows the samples they share.
    `closed_ratio` is the same of the shares of the way to the metric's reference that both went;
    the verdict is made from it where there is one. `trained` is empty for what has no counterpart
    in a trained modality (pairs, directions); then only the change is told. `p` is of no change in
    the untrained modality, Holm-adjusted over all transfers of the same call.
    """

    metric: str
    before: str
    after: str
    site: str
    trained: str
    untrained: str
    change_trained: float | None
    change_untrained: float | None
    ratio: float | None
    interval: Interval | None
    verdict: str
    note: str = ""
    p: float | None = None
    closed_trained: float | None = None
    closed_untrained: float | None = None
    closed_ratio: float | None = None
    closed_interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the verdict table: did this metric improve in this modality?"""

    metric: str
    modality: str
    role: Literal["trained", "untrained", "control"]
    status: Status
    sentence: str


@dataclass(frozen=True, slots=True)
class Analysis:
    """Everything measured on a run; what report and assertions read, and all they read."""

    schema: str
    plan_hash: str
    dataset: str
    checkpoints: tuple[str, ...]  # capture order; the first is the reference ("before")
    sites: tuple[str, ...]
    modalities: tuple[str, ...]
    pairs: tuple[str, ...]  # "image-text", "audio-text", ...
    trained: tuple[str, ...]  # modalities the last checkpoint's training saw; empty if unknown
    headline: str
    verdicts: tuple[Verdict, ...]
    measurements: tuple[Measurement, ...]
    differences: tuple[Difference, ...]
    probes: tuple[ProbeResult, ...]
    probe_differences: tuple[Difference, ...]  # metric "probe:<attribute>", modality "text->image"
    skipped: tuple[Mapping[str, str], ...]  # id, modality, reason of rows that could not be read
    provenance: Mapping[str, Any]  # plan prompts, checkpoint records, versions, seed
    transfers: tuple[Transfer, ...] = ()
    bindings: tuple[Binding, ...] = ()
    drifts: tuple[Drift, ...] = ()

    def find(self, metric: str, site: str, modality: str, checkpoint: str) -> Measurement:
        """The one measurement of that name.

        Raises:
            KeyError: it was not made.
        """
        for m in self.measurements:
            if (m.metric, m.site, m.modality, m.checkpoint) == (metric, site, modality, checkpoint):
                return m
        raise KeyError(f"no measurement {metric} at {site} for {modality} of {checkpoint}")

    def change(self, metric: str, site: str, modality: str) -> Difference:
        """The paired difference of that name, of the last checkpoint.

        Raises:
            KeyError: it was not made.
        """
        for d in (*self.differences, *self.probe_differences):
            named = (d.metric, d.site, d.modality) == (metric, site, modality)
            if named and d.after == self.checkpoints[-1]:
                return d
        raise KeyError(f"no difference {metric} at {site} for {modality}")
