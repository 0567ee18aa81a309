"""Records -> one HTML file that needs nothing else: no network, no server, no second file.

From the records to what is shown, still as records:

    book        an analysis with its records filed by name
    verdicts    its verdicts with their numbers, for the first table
    transfer    differences at the final norm
    layers      every metric over the sites
    matrices    probe accuracies, train on x test on
    mapping     the projection, for the map
    provenance  where everything came from

From there to the page:

    words       names and sentences; number formats
    figures     panel -> plotly figure
    static      panel -> SVG, without scripts, for print, and while plotly loads
    media       previews on disk -> one sheet of thumbnails and short sounds
    payload     bytes -> compressed text inside the page; the size budget
    page        all of the above -> report.html and report.json
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.page import write_report

__all__ = ["write_report"]


def __getattr__(name: str) -> Any:
    """`write_report` on first use: importing this package imports no plotting library."""
    if name == "write_report":
        from reports.page import write_report

        return write_report
    raise AttributeError(f"module 'reports' has no attribute {name!r}")
