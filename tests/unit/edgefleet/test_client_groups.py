"""The client follows the pages of the list of groups to their end, and ends where a server knows no pages."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from edgefleet import client_groups
from edgefleet.client_groups import all_groups
from edgefleet.client_http import Api, Json


class Listed(Api):
    """Answers the list of groups as a server does: this version's by pages, that of before always with all."""

    def __init__(self, count: int, *, pages: bool) -> None:
        super().__init__("http://127.0.0.1:1", None, 1.0)
        self.names = [f"g{number:02}" for number in range(count)]
        self.pages, self.calls = pages, 0

    def call(self, method: str, path: str, body: Json | None = None, content: bytes | None = None) -> Any:
        assert method == "GET"
        self.calls += 1
        asked = parse_qs(urlsplit(path).query)
        after = asked.get("after", ["/"])[0].partition("/")[2]
        names = [name for name in self.names if name > after][: int(asked["limit"][0])] if self.pages else self.names
        return [{"project": "digits", "name": name} for name in names]


@pytest.mark.parametrize("pages", [True, False])
@pytest.mark.parametrize("count", [0, 3, 4, 9])
def test_each_group_is_listed_once(monkeypatch: pytest.MonkeyPatch, count: int, pages: bool) -> None:
    monkeypatch.setattr(client_groups, "PAGE", 4)
    listed = Listed(count, pages=pages)

    assert [group["name"] for group in all_groups(listed, "digits")] == listed.names
    assert listed.calls <= count // 4 + 1
