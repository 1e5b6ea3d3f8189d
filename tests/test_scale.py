"""The simulated cluster obeys what can be computed by hand."""

from __future__ import annotations

import pytest

from benchmarks.scale import Stages, Store, simulate

STAGES = Stages(decode=0.01, encode=0.04, answer=0.05, size=1e6)


def test_without_waiting_the_cores_are_the_limit() -> None:
    run = simulate(
        STAGES, Store(latency=0, bandwidth=1e15), 8, ahead=4, shards=80, shard=10, deaths=0
    )
    assert run.rate == pytest.approx(80, rel=1e-6)
    assert run.share_of_cores == pytest.approx(1)


def test_one_worker_waits_for_each_fetch_unless_it_fetches_ahead() -> None:
    store = Store(latency=0.1, tail=0, bandwidth=1e15)
    alone = simulate(STAGES, store, 1, ahead=0, shards=10, shard=10, deaths=0)
    assert alone.rate == pytest.approx(1 / (0.1 + 0.1), rel=1e-6)
    ahead = simulate(STAGES, store, 1, ahead=2, shards=50, shard=10, deaths=0)
    assert ahead.rate == pytest.approx(10, rel=0.01)


def test_the_store_is_the_limit_of_many_workers() -> None:
    run = simulate(
        STAGES, Store(latency=0, bandwidth=1e7), 100, ahead=4, shards=1000, shard=10, deaths=0
    )
    assert run.rate == pytest.approx(10, rel=0.2), "10 pictures of 1 MB a second"
    assert run.store_share <= 1.001


def test_deaths_cost_what_they_throw_away() -> None:
    store = Store(latency=0, bandwidth=1e15)
    run = simulate(STAGES, store, 50, ahead=1, shards=1000, shard=64, deaths=2e-3)
    # A shard of n is done after ((1 - p) ** -n - 1) / p pictures on average.
    pictures = ((1 - 2e-3) ** -64 - 1) / 2e-3
    assert run.share_of_cores == pytest.approx(64 / pictures, rel=0.08)


def test_workers_without_a_shard_stand_idle() -> None:
    store = Store(latency=0, bandwidth=1e15)
    run = simulate(STAGES, store, 100, ahead=1, shards=25, shard=64, deaths=0)
    assert run.share_of_cores == pytest.approx(0.25)
