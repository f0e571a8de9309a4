"""Silence is judged against controls of the same site and hour: outages are excused, dark releases are not."""

import doctest
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import ConfigError
from fleet_server.rollout import silence as module
from fleet_server.rollout.eprocess import e_value
from fleet_server.rollout.silence import SiteGroup, design_effect, due_at, silence, site_evidence, site_out

LIMIT = 0.05
BEGAN = datetime(2026, 6, 3, 12, tzinfo=UTC)
SOAK, DEADLINE = timedelta(hours=1), timedelta(hours=2)


def group(site: str = "s", exposed: int = 10, silent: int = 0, *, controls: int = 10, controls_silent: int = 0) -> SiteGroup:
    return SiteGroup(site, "north", exposed, exposed, silent, silent, controls, controls_silent, controls_silent)


def world(seed: int, *, sites_off: float, dark: float, churn: float = 0.03) -> list[SiteGroup]:
    """50 sites of 10 exposed devices and 10 controls: sites go off as a whole, devices by churn, exposed ones by the release."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(50):
        off = rng.random() < sites_off
        exposed = 10 if off else int((rng.random(10) < churn + dark).sum())
        controls = 10 if off else int((rng.random(10) < churn).sum())
        found.append(group(f"site-{number}", 10, exposed, controls_silent=controls))
    return found


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


def test_outages_of_sites_stop_no_good_release_although_many_devices_are_silent() -> None:
    runs = [silence(world(seed, sites_off=0.2, dark=0.0)) for seed in range(200)]

    assert sum(found.evidence(LIMIT) >= 20 for found in runs) == 0
    assert sum(e_value(found.silent, found.exposed, LIMIT) >= 20 for found in runs) > 190  # without controls nearly all would stop


def test_a_release_that_darkens_devices_is_found_in_spite_of_outages() -> None:
    runs = [silence(world(seed, sites_off=0.1, dark=0.4)) for seed in range(100)]

    assert sum(found.evidence(LIMIT) >= 20 for found in runs) > 80


def test_silence_of_one_site_alone_is_its_own_trouble() -> None:
    quiet = [group(f"site-{number}") for number in range(9)]
    troubled = silence([*quiet, group("troubled", silent=10)])

    assert e_value(10, 100, LIMIT + troubled.silent_baseline + 0.01) > 1
    assert troubled.evidence(LIMIT) < 1


def test_a_site_without_controls_of_its_own_counts_once() -> None:
    found = silence([group("dark", silent=10, controls=2), group("dark", silent=7, controls=0), group("other", silent=1, controls=1)])

    assert (found.silent, found.exposed) == (2, 30)
    assert found.sites.tolist() == [[1, 20], [1, 10]]


def test_promotion_counts_who_is_missing_now_and_not_who_once_was_silent() -> None:
    back = SiteGroup("s", "north", exposed=10, due=8, silent=5, missing=1, controls=10, controls_silent=0, controls_missing=1)

    found = silence([back])

    assert (found.due, found.missing) == (8, 1)
    assert found.missing_baseline == pytest.approx(0.1)
    assert found.limit_now(LIMIT) == pytest.approx(0.15)


def test_nobody_exposed_is_no_evidence_for_anything() -> None:
    nothing = silence([])

    assert nothing.evidence(LIMIT) == pytest.approx(1.0)
    assert (nothing.due, nothing.exposed) == (0, 0)


@given(
    exposed=st.integers(1, 30),
    controls=st.integers(0, 30),
    counts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    sites=st.integers(1, 6),
)
def test_one_more_silent_control_never_adds_to_the_evidence(exposed: int, controls: int, counts: tuple[float, float], sites: int) -> None:
    silent, of_controls = int(counts[0] * exposed), int(counts[1] * controls)
    before = silence([group(f"s{i}", exposed, silent, controls=controls + 1, controls_silent=of_controls) for i in range(sites)])
    after = silence([group(f"s{i}", exposed, silent, controls=controls + 1, controls_silent=of_controls + 1) for i in range(sites)])

    assert after.evidence(LIMIT) <= before.evidence(LIMIT) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("heard_after_h", "due_after_h"),
    [
        ([], 2.0),
        ([1.2, 1.3, 1.4, 1.5], 2.0),  # nobody was away
        ([1.2, 1.3, 14.0, None], 15.0),  # 3 of 4 are needed, the third came in the morning
        ([1.2, 1.3, None, None], None),  # the site is still off
        ([1.2, 1.3, 1.4, None], 2.0),
    ],
)
def test_a_deadline_waits_for_the_controls(heard_after_h: list[float | None], due_after_h: float | None) -> None:
    heard = [None if hours is None else BEGAN + timedelta(hours=hours) for hours in heard_after_h]
    expected = None if due_after_h is None else BEGAN + timedelta(hours=due_after_h)

    assert due_at(BEGAN, DEADLINE, SOAK, heard) == expected


def test_a_release_that_takes_sites_down_shows_in_sites_and_chance_does_not() -> None:
    assert site_evidence(2, 10, 0.014) < 20 <= site_evidence(3, 10, 0.014)
    assert site_evidence(7, 60, 0.014) < 20 <= site_evidence(8, 60, 0.014)
    assert site_out(10, 7)
    assert not site_out(10, 6)
    assert not site_out(2, 2)


def test_sites_that_differ_as_much_as_chance_have_no_design_effect() -> None:
    rng = np.random.default_rng(1)
    effects = [design_effect(np.stack([rng.binomial(20, 0.2, 50), np.full(50, 20)], axis=1)) for _ in range(200)]

    assert np.median(effects) == pytest.approx(1.0, abs=0.05)
    assert design_effect(np.array([[20, 20], [0, 20]] * 10)) == pytest.approx(20 * 20 / 19)


@pytest.mark.parametrize(
    "counts",
    [
        (5, 6, 0, 0, 9, 0, 0),
        (5, 5, 6, 0, 9, 0, 0),
        (5, 5, 0, 6, 9, 0, 0),
        (5, 5, 0, 0, 9, 10, 0),
        (5, 5, -1, 0, 9, 0, 0),
        (5, 5, 0, 0, 9, 0, -1),
    ],
)
def test_counts_that_contradict_each_other_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="contradict"):
        SiteGroup("s", "north", *counts)
