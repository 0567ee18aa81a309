"""Rows of the table without media."""

from __future__ import annotations

from tests.families import Family, chatml, text_decoder
from tests.tiny_models import text_only

FAMILIES = {
    "text_only": Family(text_only, chatml(), load=text_decoder, decoder="model"),
}
