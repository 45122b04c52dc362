"""Rows of an image, a prompt and what is to be written about it, as a processor of Transformers encodes them."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import datasets
from PIL import Image

from taskit.data.generation import IGNORED, Encoder
from taskit.errors import DataError

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]  # width and height in pixels


class VisualEncoder:
    """Encodes rows with `image` (PIL), `prompt` if there is one, and `completion` unless the model is to write it.

    The image tokens and the words around them are the processor's and its chat template's; ``max_length`` bounds the
    tokens of prompt and completion, for an image cannot be cut.
    """

    def __init__(self, processor: Any, max_length: int):
        self.processor = processor
        self._text = Encoder(processor.tokenizer, max_length, encoder_decoder=False)
        self._costs: dict[Size, tuple[int, int]] = {}

    def __call__(self, rows: Sequence[dict]) -> "tuple[list[dict[str, list[int]]], dict[str, torch.Tensor]]":
        """What each row has for each of its tokens, not yet padded, labels included; and what the images give."""
        fitted = [self._fit(row) for row in rows]
        made = self._process([prompt for prompt, _ in fitted], [row["image"] for row in rows])
        mask = made["attention_mask"].bool()
        tokenwise = {key: tensor for key, tensor in made.items() if tensor.shape == mask.shape}
        encoded = []
        for position, (_, target) in enumerate(fitted):
            row = {key: tensor[position][mask[position]].tolist() for key, tensor in tokenwise.items()}
            prompted = len(row["input_ids"])
            for key, ids in row.items():
                ids.extend({"input_ids": target, "attention_mask": [1] * len(target)}.get(key, [0] * len(target)))
            encoded.append({**row, "labels": [IGNORED] * prompted + target})
        return encoded, {key: tensor for key, tensor in made.items() if key not in tokenwise}

    def sizes(self, data: datasets.Dataset) -> list[tuple[int, int, int]]:
        """(tokens, numbers of the pixels, learned tokens) of every row.

        Images of one size cost the same, whatever they show.
        """
        stored: Any = data.cast_column("image", datasets.Image(decode=False))
        found = []
        for row in stored:
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                tokens, numbers = self._cost(image.size)
            prompt, target = self._ids(row)
            found.append((tokens + len(prompt) + len(target), numbers, len(target)))
        return found

    def _cost(self, size: Size) -> tuple[int, int]:
        if size not in self._costs:
            made = self._process([self._ask("")], [Image.new("RGB", size)])
            self._costs[size] = made["input_ids"].shape[1], made["pixel_values"].numel()
        return self._costs[size]

    def _ids(self, row: dict) -> tuple[list[int], list[int]]:
        """Prompt and target of a row, truncated to the maximum length."""
        prompt = self._text.ids(row.get("prompt", ""))
        target = self._text.close(self._text.ids(row["completion"])) if "completion" in row else []
        return self._text.fit(prompt, target)

    def _fit(self, row: dict) -> tuple[str, list[int]]:
        """The whole prompt as text, image token included, and the target."""
        prompt, target = self._ids(row)
        words = row.get("prompt", "")
        if len(prompt) < len(self._text.ids(words)):
            words = self.processor.tokenizer.decode(prompt)
        return self._ask(words), target

    def _ask(self, prompt: str) -> str:
        token = getattr(self.processor, "image_token", "")
        prompt = prompt.replace(token, "") if token else prompt  # there is one image a row
        template = self._template
        if not template:
            return f"{token}\n{prompt}"
        words = [{"type": "text", "text": prompt}] if prompt else []
        talk = [{"role": "user", "content": [{"type": "image"}, *words]}]
        return self.processor.tokenizer.apply_chat_template(
            talk, chat_template=template, tokenize=False, add_generation_prompt=True
        )

    @property
    def _template(self) -> str | None:
        return self.processor.chat_template or self.processor.tokenizer.chat_template

    def _process(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> Any:
        try:
            return self.processor(
                text=list(prompts),
                images=[[image.convert("RGB")] for image in images],
                padding=True,
                padding_side="right",
                add_special_tokens=not self._template,  # a template writes them out
                return_tensors="pt",
            )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise DataError(
                f"The processor of the model refuses an image with a prompt ({error}): choose another backbone."
            ) from error
