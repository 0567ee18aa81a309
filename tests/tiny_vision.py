"""Rows of the table that read images."""

from __future__ import annotations

from tests.families import Family, chatml
from tests.tiny_models import llava_next, qwen2_5_vl, qwen2_vl

QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

FAMILIES = {
    "qwen2_5_vl": Family(qwen2_5_vl, chatml(image=QWEN_IMAGE)),
    "qwen2_vl": Family(qwen2_vl, chatml(image=QWEN_IMAGE)),
    "llava_next": Family(llava_next, chatml(image="<image>")),
}
