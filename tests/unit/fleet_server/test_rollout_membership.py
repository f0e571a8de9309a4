"""Who is in which wave: nesting, strata, hold-back, and that nobody's place depends on anybody else."""

import doctest
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.errors import ConfigError
from fleet_server.rollout import membership
from fleet_server.rollout.membership import HOLD_BACK, OTHER, Candidate, HoldBack, Membership, members_by_wave, plan_membership, shares

FLEET = [Candidate(f"d{i}", "rare" if i % 100 == 0 else f"m{i % 2}", f"site-{i % 10}") for i in range(2_000)]
SIZES = (20, 100, 500, 2_000)


@st.composite
def fleets(draw: st.DrawFn) -> list[Candidate]:
    strata = draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=120))
    return [Candidate(f"d{i}", stratum, f"s{i % 3}") for i, stratum in enumerate(strata)]


def rising(numbers: set[int]) -> tuple[int, ...]:
    return tuple(sorted(numbers))


def test_the_example_in_the_docstring_is_true() -> None:
    assert doctest.testmod(membership).failed == 0


def test_each_stratum_is_in_wave_one_with_at_least_ten_devices() -> None:
    plan = plan_membership("salt", FLEET, SIZES)
    strata = Counter(one.stratum for one in FLEET if plan.wave_of(one.device_id, one.stratum, one.site) == 1)

    assert min(strata.values()) >= 10
    assert sum(strata.values()) == 30  # ten of each kind, which is more than the 20 that were asked for


def test_waves_have_their_sizes_where_strata_ask_for_no_more() -> None:
    found = members_by_wave(plan_membership("salt", FLEET, SIZES, per_stratum=0), FLEET)

    assert [len(found[number]) for number in (0, 1, 2, 3, 4)] == [0, 20, 80, 400, 1_500]


@settings(max_examples=60)
@given(fleet=fleets(), sizes=st.sets(st.integers(1, 150), min_size=1, max_size=5).map(rising), least=st.integers(0, 5))
def test_every_device_is_in_exactly_one_place_and_waves_contain_the_ones_before(
    fleet: list[Candidate], sizes: tuple[int, ...], least: int
) -> None:
    plan = plan_membership("salt", fleet, sizes, per_stratum=least)
    found = members_by_wave(plan, fleet)

    assert sorted(device for devices in found.values() for device in devices) == sorted(one.device_id for one in fleet)
    for earlier, later in zip(plan.waves, plan.waves[1:], strict=False):
        assert all(threshold <= later.get(name, later[OTHER]) for name, threshold in earlier.items())
    reached = 0
    for number, size in enumerate(sizes, start=1):
        reached += len(found[number])
        assert reached >= min(size, len(fleet))


@settings(max_examples=60)
@given(fleet=fleets(), left=st.sets(st.integers(0, 119)), sizes=st.sets(st.integers(1, 150), min_size=1, max_size=5).map(rising))
def test_who_leaves_or_joins_moves_nobody(fleet: list[Candidate], left: set[int], sizes: tuple[int, ...]) -> None:
    plan = plan_membership("salt", fleet, sizes)
    before = {one.device_id: plan.wave_of(one.device_id, one.stratum, one.site) for one in fleet}
    stored = Membership(salt=plan.salt, waves=plan.waves, held=plan.held)
    stays = [one for i, one in enumerate(fleet) if i not in left]
    joined = [*stays, *(Candidate(f"late-{i}", "new-model", "new-site") for i in range(5))]

    after = {device: number for number, devices in members_by_wave(stored, joined).items() for device in devices}

    assert all(after[one.device_id] == before[one.device_id] for one in stays)


def test_late_joiners_of_an_unknown_model_fall_into_the_waves_in_proportion() -> None:
    plan = plan_membership("salt", FLEET, SIZES, per_stratum=0)
    late = Counter(plan.wave_of(f"late-{i}", "new", "new") for i in range(10_000))

    assert late[1] == pytest.approx(100, abs=50)
    assert late[2] == pytest.approx(400, abs=90)
    assert late[4] == pytest.approx(7_500, abs=200)


def test_a_site_of_forty_devices_keeps_at_least_three_controls() -> None:
    fleet = [Candidate(f"d{i}", "m", f"s{i % 20}") for i in range(900)]  # 45 devices a site
    held = members_by_wave(plan_membership("salt", fleet, SIZES, hold_back=HoldBack()), fleet)[HOLD_BACK]
    site = {one.device_id: one.site for one in fleet}

    assert set(Counter(site[device] for device in held).values()) == {3}


def test_small_sites_share_one_hold_back() -> None:
    fleet = [Candidate(f"d{i}", "m", f"s{i % 100}") for i in range(1_000)]

    assert len(members_by_wave(plan_membership("salt", fleet, SIZES, hold_back=HoldBack()), fleet)[HOLD_BACK]) == 50


def test_a_small_fleet_holds_nobody_back() -> None:
    fleet = FLEET[:59]

    assert members_by_wave(plan_membership("salt", fleet, (5, 59), hold_back=HoldBack()), fleet)[HOLD_BACK] == ()


def test_who_is_held_back_says_nothing_about_the_order_of_the_others() -> None:
    plain = plan_membership("salt", FLEET, SIZES, per_stratum=0)
    held = plan_membership("salt", FLEET, SIZES, per_stratum=0, hold_back=HoldBack())
    first = set(members_by_wave(plain, FLEET)[1])

    controls = set(members_by_wave(held, FLEET)[HOLD_BACK])

    assert len(first & controls) <= 5  # one in twenty by chance, not the first or last of the order


def test_another_salt_gives_another_first_wave_and_other_controls() -> None:
    one, other = (members_by_wave(plan_membership(salt, FLEET, SIZES, per_stratum=0, hold_back=HoldBack()), FLEET) for salt in ("a", "b"))

    assert len(set(one[1]) & set(other[1])) < 5
    assert len(set(one[HOLD_BACK]) & set(other[HOLD_BACK])) < 20


@given(
    size=st.integers(1, 400), strata=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 90), min_size=1), least=st.integers(0, 12)
)
def test_shares_are_what_was_asked_and_never_more_than_there_are(size: int, strata: dict[str, int], least: int) -> None:
    found = shares(size, strata, least)

    assert all(min(least, strata[name]) <= count <= strata[name] for name, count in found.items())
    assert sum(found.values()) >= min(size, sum(strata.values()))
    assert sum(shares(size, strata, 0).values()) == min(size, sum(strata.values()))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: plan_membership("s", [], (1, 2)), "matches no device"),
        (lambda: plan_membership("s", [Candidate("a"), Candidate("a")], (1, 2)), "twice"),
        (lambda: plan_membership("s", [Candidate("a")], (0, 2)), "rise"),
        (lambda: plan_membership("s", [Candidate("a")], (2, 2)), "rise"),
        (lambda: plan_membership("s", [Candidate("a")], ()), "rise"),
        (lambda: Candidate("a", "*"), "stratum"),
        (lambda: HoldBack(fraction=0.6), "hold_back"),
        (lambda: HoldBack(fraction=float("nan")), "hold_back"),
    ],
)
def test_plans_that_cannot_be_are_refused(made: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        made()  # type: ignore[operator]
