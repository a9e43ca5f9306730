import threading
import time

import pytest

from natjax.data.feed import Feed


def test_steps_come_in_order_and_only_those_asked_for():
    with Feed(lambda step: step * step, 3, 8) as feed:
        assert list(feed) == [(3, 9), (4, 16), (5, 25), (6, 36), (7, 49)]
        assert list(feed) == []
    with Feed(lambda step: step, 5, 5) as feed:
        assert list(feed) == []


def test_batches_are_made_ahead_but_not_more_than_the_depth():
    made = []
    with Feed(lambda step: made.append(step) or step, 0, 100, depth=3) as feed:
        deadline = time.monotonic() + 20
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert made == [0, 1, 2]
        assert next(feed) == (0, 0)
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert made == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [ValueError("no such row"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_of_the_thread_reaches_the_consumer_after_the_batches_before_it(error):
    def make(step):
        if step == 2:
            raise error
        return step

    with Feed(make, 0, 10) as feed:
        assert [next(feed), next(feed)] == [(0, 0), (1, 1)]
        for _ in range(2):  # and again, should the consumer go on
            with pytest.raises(type(error)) as caught:
                next(feed)
            assert caught.value is error


def test_closing_ends_the_thread_even_when_the_queue_is_full():
    feed = Feed(lambda step: step, 0, 10**9, depth=1)
    assert next(feed) == (0, 0)
    started = time.monotonic()
    feed.close()
    assert time.monotonic() - started < 5
    assert not feed._thread.is_alive()
    assert list(feed) == []
    feed.close()


def test_closing_waits_for_the_batch_in_the_making():
    entered, release, left = threading.Event(), threading.Event(), threading.Event()

    def make(step):
        entered.set()
        release.wait(20)
        left.set()

    feed = Feed(make, 0, 5)
    assert entered.wait(20)
    threading.Timer(0.05, release.set).start()
    feed.close()
    assert left.is_set() and not feed._thread.is_alive()


def test_leaving_by_an_error_ends_the_thread():
    with pytest.raises(ZeroDivisionError), Feed(lambda step: step, 0, 10**9) as feed:
        for step, _ in feed:
            1 / (step - 3)
    assert not feed._thread.is_alive()


def test_waiting_is_measured():
    with Feed(lambda step: time.sleep(0.05), 0, 4) as starved:
        for _ in starved:
            pass
    with Feed(lambda step: step, 0, 4) as fed:
        for _ in fed:
            time.sleep(0.05)
    assert starved.waited_seconds > 0.15
    assert fed.waited_seconds < starved.waited_seconds / 2
