"""One row of a generation task as token ids, with the loss where the model is to write."""

from collections.abc import Sequence

from taskit.errors import DataError

IGNORED = -100  # the label that the loss of Transformers leaves out


class Encoder:
    """Encodes a row with `prompt` and `completion`, `messages`, or `text`.

    Decoders get one sequence: labels equal the ids on the completion (the last answer of `messages`, all of `text`)
    and -100 before it. Encoder-decoders get the prompt as ids and the completion as labels. An end-of-sequence token
    closes what is learned, unless truncation cut it off.
    """

    def __init__(self, tokenizer, max_length: int, encoder_decoder: bool):
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.encoder_decoder = encoder_decoder

    def __call__(self, row: dict) -> dict[str, list[int]]:
        """Lists `input_ids`, `attention_mask` and `labels`, none longer than `max_length`."""
        prompt, target = self._parts(row)
        if self.encoder_decoder:
            if not prompt:
                raise DataError("Plain text cannot teach an encoder-decoder: give columns prompt and completion.")
            ids, labels = prompt[: self.max_length], target[: self.max_length]
        else:
            prompt, target = self.fit(prompt, target)
            ids, labels = prompt + target, [IGNORED] * len(prompt) + target
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}

    def _parts(self, row: dict) -> tuple[list[int], list[int]]:
        if "messages" in row:
            return self._talk(row["messages"])
        if "text" in row:
            return [], self.close(self.ids(row["text"], special=True))
        return self._opening(row["prompt"]), self.close(self.ids(row["completion"]))

    def ids(self, text: str, special: bool = False) -> list[int]:
        """The tokens of a text alone, or with the special ones that a model expects."""
        return self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]

    def _opening(self, prompt: str) -> list[int]:
        """The prompt with the special tokens a model expects; a decoder's must not end before the answer."""
        ids = self.ids(prompt, special=True)
        eos = self.tokenizer.eos_token_id
        return ids[:-1] if ids and ids[-1] == eos and not self.encoder_decoder else ids

    def close(self, ids: list[int]) -> list[int]:
        """What is to be written, ended by an end-of-sequence token."""
        eos = self.tokenizer.eos_token_id
        return ids if eos is None or eos in ids[-2:] else [*ids, eos]

    def _talk(self, messages: Sequence[dict[str, str]]) -> tuple[list[int], list[int]]:
        """Prompt and answer of a conversation that ends with the assistant."""
        *before, last = ({"role": turn["role"], "content": turn["content"]} for turn in messages)
        if not self.tokenizer.chat_template:
            opening = "".join(f"{turn['role']}: {turn['content']}\n" for turn in before) + "assistant:"
            return self._opening(opening), self.close(self.ids(f" {last['content']}"))
        opening, whole = self._render(before, True), self._render([*before, last], False)
        # Some templates open the answer otherwise than they replay it; then the answer is encoded alone.
        answer = whole.removeprefix(opening) if whole.startswith(opening) else last["content"]
        return self.ids(opening), self.close(self.ids(answer))

    def _render(self, messages: Sequence[dict[str, str]], prompted: bool) -> str:
        from jinja2 import TemplateError

        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompted)
        except (TemplateError, IndexError) as error:
            raise DataError(
                f"The chat template of the model refuses a conversation ({error}): start each with a user's turn."
            ) from error

    def fit(self, prompt: list[int], target: list[int]) -> tuple[list[int], list[int]]:
        """Truncate: the answer keeps at least half of `max_length`, the prompt loses its start but not its BOS."""
        target = target[: max(self.max_length - len(prompt), self.max_length // 2, 1)]
        left = self.max_length - len(target)
        if len(prompt) <= left:
            return prompt, target
        bos = [] if left < 2 or prompt[0] != self.tokenizer.bos_token_id else prompt[:1]
        return bos + prompt[len(prompt) - left + len(bos) :], target
