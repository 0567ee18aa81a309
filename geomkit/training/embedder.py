"""What the trainer runs, as sentence-transformers modules: cells of the table in, states out.

`DecoderEmbedder` is the decoder alone. Text needs no tower, and for text the decoder on its own
equals the whole model, so text-only training never loads, runs or even names the towers.
`MediaEmbedder` is the whole model without its head, for pairs of a medium and its text. Right
padding: positions then start at zero in every row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentence_transformers.base.modules import InputModule
from torch import Tensor, nn

from geomkit.errors import SampleError, TrainingError
from geomkit.pooling import last
from geomkit.processing import Processor, Shown
from geomkit.prompts import cut, render
from geomkit.training.columns import medium, spoken
from geomkit.training.states import shown
from geomkit.types import Modality, Sample


class DecoderEmbedder(InputModule):  # type: ignore[misc]  # untyped
    """Text -> rendered prompt -> tokens -> decoder -> state of the last token, after the norm.

    Text becomes tokens as it does at capture: same template, same instruction, same processor. It
    is cut to `max_tokens` before the instruction is added, so the instruction is never cut. With a
    `projection` the state goes through it. A cell that says one text to another becomes tokens
    with `targets`, how many of them are the answer: they are for the loss, not for `forward`.
    """

    def __init__(
        self,
        decoder: nn.Module,
        processor: Processor,
        instruction: str,
        max_tokens: int,
        *,
        saying: str = "",
        projection: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.processor = processor
        self.instruction = instruction
        self.max_tokens = max_tokens
        self.saying = saying
        self.projection = projection

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,  # noqa: ARG002  # the collator passes it
        **_: Any,
    ) -> dict[str, Tensor | Any]:
        """Token ids and mask of the rendered texts, right-padded. `prompt` is not used."""
        if inputs and (turns := [turn for cell in inputs if (turn := spoken(str(cell)))]):
            return self._said(turns)
        return _tokens(self.processor, [self._asked(str(t), self.instruction) for t in inputs])

    def _asked(self, text: str, instruction: str) -> str:
        short = cut(self.processor.tokenizer, text, self.max_tokens)[0]
        return render(self.processor, "text", short, instruction)

    def _said(self, turns: Sequence[tuple[str, str]]) -> dict[str, Tensor | Any]:
        """The first text of each turn, the instruction to say it anew, and the second text."""
        tokenizer = self.processor.tokenizer
        asked = [self._asked(first, self.saying) for first, _ in turns]
        ends = str(tokenizer.eos_token)  # the model must also know when to stop
        answers = [cut(tokenizer, answer, self.max_tokens)[0] + ends for _, answer in turns]
        whole = [question + answer for question, answer in zip(asked, answers, strict=True)]
        found = _tokens(self.processor, whole)
        before = _tokens(self.processor, asked)["attention_mask"].sum(dim=1)
        found["targets"] = found["attention_mask"].sum(dim=1) - before
        return found

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Add `sentence_embedding`, float `(batch, dim)`."""
        ids, mask = features["input_ids"], features["attention_mask"]
        states = self.decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        state = last(states, mask)
        projected = state if self.projection is None else self.projection(state)
        features["sentence_embedding"] = projected
        return features

    def get_embedding_dimension(self) -> int:
        """Width of the decoder."""
        return int(self.decoder.get_input_embeddings().embedding_dim)  # type: ignore[operator]  # nn.Module attribute

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Nothing to save here: the trainer writes what trained."""


class MediaEmbedder(InputModule):  # type: ignore[misc]  # untyped
    """A medium or a text -> the whole model without its head -> state of the last token.

    A cell is a text, or names a sample's medium. Frozen towers stay in evaluation mode.
    """

    def __init__(
        self,
        body: nn.Module,
        decoder: nn.Module,
        processor: Processor,
        instructions: Mapping[Modality, str],
        max_tokens: int,
        samples: Sequence[Sample],
    ) -> None:
        super().__init__()
        self.body = body
        self.processor = processor
        self.instructions = instructions
        self.max_tokens = max_tokens
        self._decoder = (decoder,)  # a tuple: it is in the body already
        self._samples = samples

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,  # noqa: ARG002  # the collator passes it
        **_: Any,
    ) -> dict[str, Tensor | Any]:
        """Model inputs of cells of one kind, right-padded. `prompt` is not used."""
        cells = [str(cell) for cell in inputs]
        try:
            return dict(self.processor.encode([self._shown(cell) for cell in cells]))
        except (ValueError, TypeError, RuntimeError, IndexError, SampleError) as cause:
            rows = [medium(cell)[1] for cell in cells]
            names = [self._samples[row].id for row in rows if row >= 0]
            raise TrainingError(
                f"Expected a batch that the processor takes, of {', '.join(names) or 'texts'}: "
                f"{cause}."
            ) from cause

    def _shown(self, cell: str) -> Shown:
        kind, row = medium(cell)
        if kind != "text":
            return shown(self.processor, self._samples[row], kind, self.instructions[kind])
        text = cut(self.processor.tokenizer, cell, self.max_tokens)[0]
        return Shown(render(self.processor, "text", text, self.instructions["text"]), "text")

    def forward(self, features: dict[str, Tensor | Any], **_: Any) -> dict[str, Tensor | Any]:
        """Add `sentence_embedding`, float `(batch, dim)`."""
        dtype = next(p.dtype for p in self._decoder[0].parameters() if not p.requires_grad)
        given = {
            name: t.to(dtype) if t.is_floating_point() else t
            for name, t in features.items()
            if isinstance(t, Tensor) and name != "sentence_embedding"
        }
        seen: list[Tensor] = []
        hook = self._decoder[0].register_forward_hook(
            lambda _module, _given, out: seen.append(out.last_hidden_state)
        )
        try:
            self.body(**given, use_cache=False)
        finally:
            hook.remove()
        features["sentence_embedding"] = last(seen[-1], features["attention_mask"])
        return features

    def train(self, mode: bool = True) -> MediaEmbedder:
        """Training mode where something trains, evaluation mode elsewhere."""
        super().train(mode)
        for module in self.body.children():
            if mode and not any(p.requires_grad for p in module.parameters()):
                module.eval()
        return self

    def get_embedding_dimension(self) -> int:
        """Width of the decoder."""
        return int(self._decoder[0].get_input_embeddings().embedding_dim)  # type: ignore[operator]  # nn.Module attribute

    def save(
        self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Nothing to save here: the trainer writes what trained."""


def _tokens(processor: Processor, rendered: Sequence[str]) -> dict[str, Tensor | Any]:
    batch = processor.encode([Shown(text, "text") for text in rendered])
    return {name: batch[name] for name in ("input_ids", "attention_mask")}
