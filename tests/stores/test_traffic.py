"""Requests that fail, are slowed down, and are given up, on a virtual clock."""

from __future__ import annotations

import asyncio
import random

import pytest

from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores.traffic import Traffic


def failing(times, error=TransientStoreError, seconds=0.0, **fields):
    """An attempt that fails so many times, and then answers when it was made."""
    failures = iter(range(times))

    async def attempt(_):
        await asyncio.sleep(seconds)
        for number in failures:
            raise error(f"failure {number}", **fields)
        return asyncio.get_running_loop().time()

    return attempt


async def test_the_first_success_is_the_answer():
    traffic = Traffic(RetryPolicy())
    assert await traffic.run("get", "k", failing(0)) > 0
    assert (traffic.stats.attempts, traffic.stats.retries) == (1, 0)


def test_failures_are_made_again(run_virtual):
    traffic = Traffic(RetryPolicy(), seed=1)
    end = run_virtual(lambda: traffic.run("get", "k", failing(7)))
    assert 0 < end <= 0.1 * (1 + 2 + 4 + 8 + 16 + 32 + 64)
    assert (traffic.stats.attempts, traffic.stats.retries, traffic.stats.failed) == (8, 7, 0)


def test_the_last_failure_comes_out_and_says_how_often_it_was_tried(run_virtual):
    traffic = Traffic(RetryPolicy(attempts=3))
    with pytest.raises(TransientStoreError, match="failure 2; given up after 3 attempts"):
        run_virtual(lambda: traffic.run("get", "k", failing(9)))
    assert traffic.stats.failed == 1


async def test_without_retries_the_first_failure_comes_out_as_it_is():
    with pytest.raises(TransientStoreError, match="^failure 0$"):
        await Traffic(NO_RETRIES).run("get", "k", failing(1))


@pytest.mark.parametrize("error", [StoreError, PreconditionFailedError, KeyError])
async def test_what_is_final_is_not_tried_again(error):
    traffic = Traffic(RetryPolicy())
    with pytest.raises(error):
        await traffic.run("get", "k", failing(1, error))
    assert traffic.stats.attempts == 1


def test_servers_say_how_long_to_wait(run_virtual):
    policy = RetryPolicy(first_delay=0, longest_retry_after=60)
    assert run_virtual(lambda: Traffic(policy).run("get", "k", failing(2, ThrottledError, retry_after=3))) >= 6
    assert 60 <= run_virtual(lambda: Traffic(policy).run("get", "k", failing(1, ThrottledError, retry_after=1e9))) <= 61


def test_an_attempt_that_hangs_is_a_failure(run_virtual):
    async def attempt(attempt):
        if attempt.number == 1:
            await asyncio.sleep(1e6)
        return asyncio.get_running_loop().time()

    assert 30 <= run_virtual(lambda: Traffic(RetryPolicy()).run("get", "k", attempt)) <= 30.2


def test_large_values_have_more_time(run_virtual):
    async def attempt(attempt):
        attempt.expect(100 * 2**20)
        await asyncio.sleep(220)
        return attempt.number

    assert run_virtual(lambda: Traffic(RetryPolicy()).run("get", "k", attempt, 100 * 2**20)) == 1


def test_no_attempt_begins_after_the_total_time(run_virtual):
    traffic = Traffic(RetryPolicy(attempts=1000, total=50))
    with pytest.raises(TransientStoreError, match=r"given up after \d\d s"):
        run_virtual(lambda: traffic.run("get", "k", failing(1000, seconds=1)))
    assert 5 < traffic.stats.attempts <= 50


def test_an_outage_ends_with_the_budget(run_virtual):
    traffic = Traffic(RetryPolicy(budget=30))

    async def main():
        return await asyncio.gather(*(traffic.run("get", "k", failing(99)) for _ in range(20)), return_exceptions=True)

    errors = run_virtual(main)
    assert all(isinstance(error, TransientStoreError) for error in errors)
    assert traffic.stats.retries == 10
    assert sum("retry budget" in str(error) for error in errors) == 20


def test_a_fifth_of_failures_never_uses_up_the_budget(run_virtual):
    traffic, chance = Traffic(RetryPolicy()), random.Random(7)

    async def attempt(_):
        if chance.random() < 0.2:
            raise TransientStoreError("so it goes")

    async def main():
        for _ in range(200):
            await asyncio.gather(*(traffic.run("get", "k", attempt) for _ in range(32)))

    run_virtual(main)
    assert traffic.stats.retries > 1000


def test_refusals_are_answers(run_virtual):
    """Of many writers in a race all but one are refused: that must not use up what failures may cost."""
    traffic, chance = Traffic(RetryPolicy(attempts=50)), random.Random(7)

    async def attempt(_):
        if chance.random() < 0.2:
            raise TransientStoreError("so it goes")
        raise PreconditionFailedError("somebody was faster")

    async def main():
        for _ in range(200):
            answers = await asyncio.gather(*(traffic.run("set_if", "k", attempt) for _ in range(32)), return_exceptions=True)
            assert {type(answer) for answer in answers} == {PreconditionFailedError}

    run_virtual(main)
    assert traffic.stats.retries > 1000


def test_no_more_requests_at_once_than_allowed(run_virtual):
    traffic, running, most = Traffic(RetryPolicy(), concurrency=3), 0, 0

    async def attempt(_):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    async def main():
        await asyncio.gather(*(traffic.run("get", "k", attempt) for _ in range(10)))
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 4
    assert most == 3


def test_a_fixed_rate(run_virtual):
    traffic = Traffic(RetryPolicy(), rate=10)

    async def main():
        await asyncio.gather(*(traffic.run("get", "k", failing(0)) for _ in range(101)))
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == pytest.approx(10)


class Server:
    """Takes ``rate`` requests a second, and up to a tenth of that at once; the others are throttled."""

    def __init__(self, rate, latency):
        self.rate, self.latency = rate, latency
        self.tokens = self.since = 0.0
        self.answers = []

    async def answer(self, _):
        await asyncio.sleep(self.latency)
        now = asyncio.get_running_loop().time()
        self.tokens = min(self.rate / 10, self.tokens + (now - self.since) * self.rate)
        self.since = now
        granted = self.tokens >= 1
        self.answers.append((now, granted))
        if not granted:
            raise ThrottledError("slow down")
        self.tokens -= 1


@pytest.mark.parametrize("rate", [20, 100, 3000])
@pytest.mark.parametrize("latency", [0.001, 0.1])
def test_throttled_requests_soon_go_as_fast_as_the_server_takes_them(run_virtual, rate, latency):
    server, traffic = Server(rate, latency), Traffic(RetryPolicy(), concurrency=512, seed=3)
    tasks, end = (64, 60) if rate < 1000 else (512, 20)

    async def ask():
        while asyncio.get_running_loop().time() < end:
            await traffic.run("get", "k", server.answer)

    async def main():
        await asyncio.gather(*(ask() for _ in range(tasks)))

    run_virtual(main)
    later = [granted for when, granted in server.answers if 10 <= when < end]
    assert sum(later) >= 0.85 * rate * (end - 10)
    assert later.count(False) < 0.1 * len(later)


def test_a_server_that_throttles_now_and_then_is_not_slowed_down(run_virtual):
    traffic, chance, done = Traffic(RetryPolicy(), seed=2), random.Random(5), 0

    async def attempt(_):
        await asyncio.sleep(0.01)
        if chance.random() < 0.02:
            raise ThrottledError("a moment")

    async def ask():
        nonlocal done
        while asyncio.get_running_loop().time() < 20:
            await traffic.run("get", "k", attempt)
            done += 1

    async def main():
        await asyncio.gather(*(ask() for _ in range(32)))

    run_virtual(main)
    assert done > 0.4 * 20 * 32 / 0.01  # a fiftieth of them waited for a while
    assert traffic.stats.throttled > 500


def test_a_request_that_waits_can_be_cancelled(run_virtual):
    traffic = Traffic(RetryPolicy(), concurrency=1)

    async def main():
        first = asyncio.ensure_future(traffic.run("get", "k", failing(0, seconds=5)))
        second = asyncio.ensure_future(traffic.run("get", "k", failing(0, seconds=5)))
        await asyncio.sleep(1)
        second.cancel()
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        await traffic.run("get", "k", failing(0))
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 1


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"first_delay": -1}, {"total": 0}, {"attempt_timeout": -1}, {"budget": -1}, {"longest_retry_after": -1}]
)
def test_policies_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="must|once"):
        RetryPolicy(**wrong)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"rate": 0}])
def test_limits_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="not 0"):
        Traffic(RetryPolicy(), **wrong)
