"""How the probes of a run are trained, and which parts of them are run."""

from __future__ import annotations

from dataclasses import dataclass

from geomkit.enquiry import PROBES, Readout
from geomkit.errors import UsageError


@dataclass(frozen=True, slots=True)
class ProbeConfig:
    """How the probes are trained; equal for every checkpoint."""

    sites: tuple[str, ...] = ()  # empty: final_norm and every other block
    pooling: str = "last"
    held_out: float = 0.5  # share of the groups to test on
    seed: int = 0  # of the split, of the shuffled labels, of the order in which labels are sent
    readout: Readout = "multinomial"
    penalty: float | None = None  # of |w|^2, inputs at unit variance; None: by cross-validation
    parts: tuple[str, ...] = PROBES

    def __post_init__(self) -> None:
        """Refuses a part or a read-out that does not exist.

        Raises:
            UsageError: naming those that do.
        """
        for part in self.parts:
            if part not in PROBES:
                raise UsageError(f"Expected probe parts of {', '.join(PROBES)}, got {part!r}.")
        if self.readout not in ("multinomial", "ridge"):
            raise UsageError(f"Expected readout multinomial or ridge, got {self.readout!r}.")
