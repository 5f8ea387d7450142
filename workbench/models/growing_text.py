"""The text of a growing list of tokens, of which only the newest ones are decoded again at each step."""

from collections.abc import Callable, Sequence

KEPT_TOKENS = 16  # that are decoded again with each new one: what they begin with can change the text of the next
MOST_TOKENS = 64  # after which the oldest are left behind


class GrowingText:
    """Text that tokens add one after the other.

    Args:
        ids: The tokens that are there, whose text is known already.
        decode: Text of token ids.
        settle: Text of token ids that no further token can change.
    """

    def __init__(self, ids: Sequence[int], decode: Callable[[list[int]], str], settle: Callable[[list[int]], str]) -> None:
        self._ids, self._decode, self._settle = list(ids), decode, settle
        self._shown = len(decode(self._ids))  # characters of the text of `_ids` that were returned

    def add(self, token: int) -> str:
        """The characters that are certain now; none while a character is unfinished."""
        self._ids.append(token)
        return self._take(self._settle(self._ids))

    def finish(self) -> str:
        """The characters that waited for a further token."""
        return self._take(self._decode(self._ids))

    def _take(self, text: str) -> str:
        piece, self._shown = text[self._shown :], max(self._shown, len(text))
        if len(self._ids) > MOST_TOKENS:
            self._leave_oldest(text)
        return piece

    def _leave_oldest(self, text: str) -> None:
        """Keep the newest tokens alone, where all has been shown and their text is the end of the text."""
        newest = self._ids[-KEPT_TOKENS:]
        end = self._settle(newest)
        if self._shown == len(text) and end and text == self._decode(self._ids) and text.endswith(end):
            self._ids, self._shown = newest, len(end)
