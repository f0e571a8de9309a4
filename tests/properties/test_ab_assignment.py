"""The assignment of keys: its share is what was asked for, it is nested when the share grows, and the salt deals anew."""

import math

from hypothesis import given
from hypothesis import strategies as st

from device_agent.doors.ab import STEPS, key_bytes, place, takes

SALTS = st.text(min_size=1, max_size=16)
KEYS = st.one_of(st.text(max_size=40), st.integers())


@given(SALTS, KEYS, st.integers(0, STEPS), st.integers(0, STEPS))
def test_a_larger_share_keeps_every_key_of_a_smaller_one(salt: str, key: str | int, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert takes(salt, key_bytes(key), large) or not takes(salt, key_bytes(key), small)


@given(SALTS, KEYS)
def test_nobody_is_chosen_at_0_and_everybody_at_1024(salt: str, key: str | int) -> None:
    assert not takes(salt, key_bytes(key), 0)
    assert takes(salt, key_bytes(key), STEPS)


@given(SALTS, st.integers(1, STEPS - 1), st.integers(0, 2**40))
def test_the_share_of_many_keys_is_the_share_asked_for(salt: str, share: int, start: int) -> None:
    n, p = 2000, share / STEPS
    chosen = sum(takes(salt, key_bytes(f"device-{start + i}"), share) for i in range(n))
    # Six standard deviations of a binomial: once in 500 million.
    assert abs(chosen - n * p) <= 6 * math.sqrt(n * p * (1 - p)) + 1


@given(SALTS, SALTS)
def test_another_salt_deals_anew(salt: str, other: str) -> None:
    same = sum(place(salt, key_bytes(i)) == place(other, key_bytes(i)) for i in range(512))
    assert (same == 512) if salt == other else same <= 8
