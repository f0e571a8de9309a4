"""What the terminal says about plans and rollouts, from answers of the API."""

import doctest
import re
from typing import Any

import pytest

from edgefleet.cli import rollout_text
from edgefleet.cli.plan_text import plan_text
from edgefleet.cli.rollout_text import bar, counts_of, explain_text, status_text

WAVE: dict[str, Any] = {
    "number": 1, "state": "open", "opened_at": None, "promoted_at": None, "reason": "",
    "members": [
        {"device_id": "press-1", "progress": "ok", "reason": "committed and attested", "site": ""},
        {"device_id": "press-2", "progress": "failed", "reason": "disagrees with the running model", "site": ""},
    ],
}  # fmt: skip
GATE: dict[str, Any] = {
    "name": "early warning", "verdict": "pause", "now": "12.2", "limit": "10", "n": 5, "level": 1.0,
    "sentence": "Pause: 2 of 5 devices failed already.", "turns": "A person: resume accepts these failures.",
}  # fmt: skip
CALM: dict[str, Any] = GATE | {
    "name": "stop",
    "verdict": "promote",
    "now": "1.1",
    "limit": "20",
    "level": 0.03,
    "sentence": "Calm.",
    "turns": "",
}
STATUS: dict[str, Any] = {
    "rollout_id": "r-1", "state": "running", "version": 4, "sentence": "Hold: 1 of 2 devices is ok.", "missing": "It waits.",
    "waves": [WAVE], "gates": [CALM, GATE],
}  # fmt: skip
CHANCE = {
    "failing": 0.1, "stopped_in_first": 0.998, "stopped": 1.0, "harmed_median": 8.0, "harmed_p95": 20.0,
    "late_stopped": 1.0, "late_harmed_median": 11.0, "late_harmed_p95": 19.0,
    "dark_stopped_in_first": 0.97, "dark_stopped": 0.999, "dark_harmed_mean": 9.26, "dark_harmed_median": 9.0, "dark_harmed_p95": 14.0,
}  # fmt: skip
PLAN: dict[str, Any] = {
    "digest": "ab" * 32, "project": "digits", "release": "2", "release_id": "digits-2", "policy_name": "by evidence",
    "policy_digest": "cd" * 32, "selection": "all devices", "rule": "posterior", "limit": 0.05,
    "sentence": "digits 2 to 97 devices in 2 waves, 3 are held back.", "devices": 100, "held_back": 3, "sites": 4,
    "waves": [
        {"number": 1, "devices": 5, "adds": 5, "strata": [["m1", 3], ["m2", 2]], "opens_s": 0.0, "opening_s": 0.0, "dwell_s": 86_400.0,
         "asleep_s": 0.0, "done_s": 86_400.0, "device_ids": ["a", "b", "c", "d", "e"]},
        {"number": 2, "devices": 97, "adds": 92, "strata": [["", 92]], "opens_s": 86_400.0, "opening_s": 32_400.0, "dwell_s": 0.0,
         "asleep_s": 7_200.0, "done_s": 133_200.0, "device_ids": []},
    ],
    "duration_s": 133_200.0, "awake": {"shares": [0.25] * 24, "days": 7, "devices": 100}, "chances": [CHANCE], "runs": 10_000,
    "needs": [
        {"gate": "memory", "change": "15 % more memory", "tolerance": 0.0488, "devices": 36, "wave": 1},
        {"gate": "class rate", "change": "3 points more positive answers", "tolerance": 0.01, "devices": None, "wave": None},
    ],
    "cautions": ["All devices are at one site."], "held_back_ids": ["x", "y", "z"],
}  # fmt: skip
EXPLAINED: dict[str, Any] = {
    "rollout_id": "r-1", "state": "running", "version": 4, "wave": 1, "waves": 2, "verdict": "pause", "sentence": "Pause.", "missing": "",
    "decides": "early warning", "gates": [CALM, GATE], "waits": [{"devices": 40, "why": "pace", "sentence": "The next batch is not due."}],
    "chances": [CHANCE], "runs": 10_000,
}  # fmt: skip


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(rollout_text)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_plan_says_waves_times_chances_cautions_and_that_nothing_was_changed() -> None:
    text = plan_text(PLAN)

    assert re.search(r"1 +5 +5 +0 s +0 s +24\.0 h +0 s +24\.0 h +m1 3, m2 2", text)
    assert re.search(r"10 % +99\.8 % +100 % +8 \(20\) +100 % +11 \(19\)", text)
    assert re.search(r"10 % +97\.0 % +99\.9 % +9 \(14\) +9\.3", text)
    assert re.search(r"memory +15 % more memory +36 +1", text)
    assert re.search(r"class rate +3 points more positive answers +no number is enough +none", text)
    assert "held back: 3 devices" in text
    assert "00h 25%" in text
    assert "  - All devices are at one site." in text
    assert "Nothing was changed." in text
    assert "a, b, c" not in text


def test_a_plan_fits_a_terminal_of_eighty_columns_and_no_word_is_lost() -> None:
    caution = "All devices are at one site, and that is told in so many words that no terminal shows them in a line. " * 2
    large = CHANCE | {"harmed_median": 1_284.0, "harmed_p95": 1_312.0, "dark_harmed_median": 1_001.0, "dark_harmed_p95": 1_034.0}
    many = [["", 400], *([f"hardware-of-{number}", 12] for number in range(5))]
    waves = [wave | {"strata": many} for wave in PLAN["waves"]]

    text = plan_text(PLAN | {"cautions": [caution], "chances": [large], "waves": waves}, with_devices=True, width=80)

    assert max(len(line) for line in text.splitlines()) <= 80
    assert " ".join(caution.split()) in " ".join(text.split())
    assert re.search(r"^ {4}\S", text[text.index("  - All devices") :], re.MULTILINE)
    assert "no label 400, hardware-of-0 12" in " ".join(text.split())


def test_a_fleet_without_strata_has_no_column_for_them() -> None:
    assert "strata" not in plan_text(PLAN | {"waves": [PLAN["waves"][1]]})


def test_devices_are_named_only_where_they_are_asked_for() -> None:
    text = plan_text(PLAN, with_devices=True)

    assert "wave 1 (5):\n  a, b, c, d, e" in text
    assert "held back (3):\n  x, y, z" in text


def test_the_status_names_few_devices_all_and_puts_the_gate_that_holds_first() -> None:
    text = status_text(STATUS)

    assert "press-1" in text
    assert text.index("early warning") < text.index("stop")


def test_of_thousands_of_devices_only_those_that_need_a_look_are_named_and_at_most_twenty() -> None:
    good = [{"device_id": f"good-{i}", "progress": "ok", "reason": "", "site": ""} for i in range(2_000)]
    bad = [{"device_id": f"bad-{i}", "progress": "silent", "reason": "", "site": ""} for i in range(50)]
    text = status_text(STATUS | {"waves": [WAVE | {"members": good + bad}]})

    assert "good-1" not in text
    assert text.count("bad-") == 20
    assert "30 more failed or silent devices are not listed" in text


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_no_line_of_words_is_wider_than_the_terminal_and_no_word_is_lost(width: int) -> None:
    long = GATE | {"sentence": "Pause: 2 of 5 devices failed already, and what follows is more than a line of any terminal " * 2}

    text = status_text(STATUS | {"gates": [CALM, long]}, width)

    assert max(len(line) for line in text.splitlines()) <= width
    assert " ".join(long["sentence"].split()) in " ".join(text.split())


@pytest.mark.parametrize("width", range(60, 80))
def test_the_name_of_a_device_or_rollout_is_never_broken_at_its_hyphens(width: int) -> None:
    names = [f"camera-hall-{number}-door-{number}" for number in range(12)]
    said = f"Pause: {', '.join(names)} failed."

    text = status_text(STATUS | {"missing": said, "gates": [CALM, GATE | {"sentence": said}]}, width)

    assert all(text.count(name) >= 2 for name in names)


def test_what_another_program_reads_has_one_line_a_gate() -> None:
    long = GATE | {"sentence": "Pause: " + "many words " * 40}

    assert any(line.startswith("pause") and line.endswith("many words") for line in status_text(STATUS | {"gates": [long]}).splitlines())


def test_a_narrow_terminal_gets_no_bars() -> None:
    assert "#" in status_text(STATUS, width=120)
    assert "#" not in status_text(STATUS, width=80)


@pytest.mark.parametrize("total", [1, 31, 32, 1_000, 100_000])
def test_a_bar_is_as_wide_as_asked_and_hides_no_single_failure(total: int) -> None:
    drawn = bar({"ok": total, "failed": 1, "silent": 1, "pending": 0, "not-begun": 0})

    assert len(drawn) == rollout_text.WIDTH
    assert drawn.count("x") >= 1
    assert drawn.count("!") >= 1


def test_counts_that_the_server_made_are_used_and_others_are_made_of_the_members() -> None:
    assert counts_of(WAVE)["failed"] == 1
    assert counts_of({"counts": {"ok": 5}, "members": []}) == {"ok": 5, "failed": 0, "silent": 0, "pending": 0, "not-begun": 0}


def test_an_explanation_marks_the_gate_that_decides_and_says_what_would_change_it() -> None:
    text = explain_text(EXPLAINED)

    assert re.search(r"PAUSE +early warning \(this one decides\)\n +12\.2; limit 10; n = 5  \[={20}\]", text)
    assert "What would change it: A person" in text
    assert re.search(r"40 +pace +The next batch", text)
    assert re.search(r"^fails on +stopped in wave 1", text, re.MULTILINE)


def test_before_any_wave_nothing_is_known_and_that_is_said() -> None:
    text = explain_text(EXPLAINED | {"wave": 0, "gates": [], "waits": [], "chances": []})

    assert "no wave is open" in text
    assert "nothing is known" in text
