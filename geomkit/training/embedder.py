"""The decoder alone as a sentence-transformers module: text in, last-token state out.

Text needs no tower, and for text the decoder on its own equals the whole model, so training never
loads, runs or even names the towers. Right padding: positions then start at zero in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn

from geomkit.pooling import last
from geomkit.processing import Processor, Shown
from geomkit.prompts import cut, render


class DecoderEmbedder(InputModule):  # type: ignore[misc]  # untyped
    """Text -> rendered prompt -> tokens -> decoder -> state of the last token, after the norm.

    Text becomes tokens as it does at capture: same template, same instruction, same processor. It
    is cut to `max_tokens` before the instruction is added, so the instruction is never cut.
    """

    def __init__(
        self, decoder: nn.Module, processor: Processor, instruction: str, max_tokens: int
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.processor = processor
        self.instruction = instruction
        self.max_tokens = max_tokens

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,  # noqa: ARG002  # the collator passes it
        **_: Any,
    ) -> dict[str, Tensor | Any]:
        """Token ids and mask of the rendered texts, right-padded. `prompt` is not used."""
        tokenizer = self.processor.tokenizer
        texts = [cut(tokenizer, str(text), self.max_tokens)[0] for text in inputs]
        rendered = [render(self.processor, "text", text, self.instruction) for text in texts]
        rows = [Shown(text, "text") for text in rendered]
        batch = self.processor.encode(rows)
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Add `sentence_embedding`, float `(batch, dim)`."""
        ids, mask = features["input_ids"], features["attention_mask"]
        states = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        features["sentence_embedding"] = last(states, mask)
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the decoder."""
        return int(self.decoder.get_input_embeddings().embedding_dim)  # type: ignore[operator]  # nn.Module attribute

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Nothing to save here: the adapter is the only thing that changed, and PEFT writes it."""
