"""Token ids as text, as they come: a piece is shown when its characters are whole."""

import tokenizers
from tokenizers.decoders import DecodeStream


class TextStream:
    """The text of one answer, piece by piece."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.stream = DecodeStream(skip_special_tokens=True)
        self.tokens: list[int] = []
        self.shown = ""

    def add(self, tokens: tuple[int, ...]) -> str:
        """The text that became whole with these tokens."""
        self.tokens += tokens
        piece = "".join(self._step(token) or "" for token in tokens)
        self.shown += piece
        return piece

    def _step(self, token: int) -> str | None:
        """The next whole piece; bytes that make no character are given up."""
        try:
            return self.stream.step(self.tokenizer, token)
        except Exception as error:  # tokenizers raises nothing narrower
            if "Invalid prefix" not in str(error):
                raise
            self.stream = DecodeStream(skip_special_tokens=True)
            return self.stream.step(self.tokenizer, token)

    def end(self) -> str:
        """What is left, whole or not."""
        text = self.tokenizer.decode(self.tokens)
        return text.removeprefix(self.shown) if text.startswith(self.shown) else ""
