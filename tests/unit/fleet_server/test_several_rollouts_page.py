"""docs/rollout-several.md names a test for each of the 18 decisions, and every test of a decision stands there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "rollout-several.md").read_text()


def named() -> dict[int, set[str]]:
    rows = re.findall(r"^\| (\d+) \|.*$", PAGE, re.MULTILINE)
    lines = [line for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
    return {int(number): set(re.findall(r"`(test_\w+)`", line)) for number, line in zip(rows, lines, strict=True)}


def there() -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for path in Path(__file__).parent.glob("test_several_rollouts*.py"):
        for name, number in re.findall(r"^def (test_decision_(\d\d)_\w+)", path.read_text(), re.MULTILINE):
            found.setdefault(int(number), set()).add(name)
    return found


def test_each_of_the_18_decisions_has_tests_and_the_page_names_exactly_those() -> None:
    assert named() == there()
    assert sorted(there()) == list(range(1, 19))


def test_the_page_names_every_key_of_a_policy_that_is_about_several_rollouts() -> None:
    from fleet_server.rollout.policy import _OF_SEVERAL

    assert all(f"| `{key}` |" in PAGE for key in (*_OF_SEVERAL, "approvals"))
