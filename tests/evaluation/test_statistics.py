"""Wilson's interval against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepvideo_eval.statistics import Z95, Proportion, mean


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_are_where_the_score_test_turns(pair: tuple[int, int]) -> None:
    """At both ends of the interval p the observed rate is z standard errors of p away from p."""
    found = Proportion(*pair)
    rate = found.rate
    assert rate is not None
    low, high = found.interval()
    assert 0 <= low <= rate <= high <= 1
    for end in (low, high):
        error = (rate - end) ** 2 - Z95**2 * end * (1 - end) / found.count
        assert abs(error) < 1e-9
    assert low < rate or rate == 0
    assert high > rate or rate == 1


def test_known_values() -> None:
    """All of 100: 1 / (1 + z^2 / n); half of 100: centred."""
    assert Proportion(100, 100).interval()[0] == pytest.approx(1 / (1 + Z95**2 / 100))
    low, high = Proportion(50, 100).interval()
    assert (low, high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_no_trials() -> None:
    assert Proportion.of([]).interval() == (0.0, 1.0)
    assert Proportion.of([]).as_json() == {
        "successes": 0,
        "count": 0,
        "rate": None,
        "interval95": None,
    }
    assert mean([]) is None


def test_more_successes_than_trials() -> None:
    with pytest.raises(ValueError, match="3 of 2 is no proportion"):
        Proportion(3, 2)
