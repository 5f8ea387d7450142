"""Files on their way to a visitor: whole again at the other end, and no message too long."""

import gzip
from typing import Any

import pytest

from workbench.widgets.elements import download
from workbench.widgets.elements.download import Delivery


@pytest.mark.parametrize("content", ["", "a card", "ä" * 1000 + "".join(map(str, range(20_000)))], ids=["empty", "short", "long"])
def test_pieces_make_the_file_again(content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MESSAGE_BYTES", 4096)
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(Delivery, "_send_msg", lambda _, message: sent.append(message))
    Delivery().send("card.html", content)
    assert [message["last"] for message in sent] == [False] * (len(sent) - 1) + [True]
    assert len(sent) > 1 or len(content) < 10
    assert max(len(message["piece"]) for message in sent) <= 4096
    assert {message["name"] for message in sent} == {"card.html"}
    assert gzip.decompress(b"".join(message["piece"] for message in sent)).decode() == content
