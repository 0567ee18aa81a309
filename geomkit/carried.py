"""The words for a change that carried over, or did not, and the status each is told with."""

from __future__ import annotations

from collections.abc import Mapping

from geomkit.types import Status

FULL = "transferred in full"
NEARLY = "transferred nearly in full"
PART = "transferred in part"
MORE = "more than in the trained modality"
SOME = "transferred, amount open"
NONE = "no clear transfer"
OPEN = "cannot be told"
OPPOSITE = "the opposite happened"
NOTHING = "nothing to transfer"
INCOMPARABLE = "not comparable"
UNMEASURED = "not measured"
BETTER, WORSE, STILL = "clearly better", "clearly worse", "no clear change"
"""Verdicts of what has no counterpart in a trained modality."""
GREW, SHRANK = "grew as states spread", "shrank as states collapsed"
BLIND = "no claim without uniformity"
"""Verdicts of a distance that says nothing of the pairs: every distance did the same."""

SAME = "in the same samples"
"""How the note begins where the trained modality is measured in the untrained one's samples."""

CARRIED = (FULL, NEARLY, PART, MORE, SOME)
STATUSES: Mapping[str, Status] = {
    **dict.fromkeys((*CARRIED, BETTER), "PASS"),
    **dict.fromkeys((OPPOSITE, WORSE), "FAIL"),
    **dict.fromkeys((NONE, OPEN, STILL), "WARN"),
    **dict.fromkeys((NOTHING, INCOMPARABLE, UNMEASURED), "NOT RUN"),
    **dict.fromkeys((GREW, SHRANK, BLIND), "info"),
}
"""The status that a verdict is told with."""
