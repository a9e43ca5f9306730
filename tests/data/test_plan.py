import itertools
import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax.data import plan as module
from natjax.data.plan import Bucket, Plan, choose_buckets, sequential

lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=40)


def columns(pairs):
    return np.array([s for s, _ in pairs], np.int32), np.array([n for _, n in pairs], np.int32)


def choose(pairs, **changes):
    options = dict(
        buckets=3, multiple=4, max_length=40, batch_frames=400, max_frames=lambda S, N: 2 * S, row_multiple=2
    )
    return choose_buckets(*columns(pairs), **{**options, **changes})


def smallest_fit(shapes, s, n):
    return next((i for i, (S, N) in enumerate(shapes) if s <= S and n <= N), None)


@given(lengths, st.integers(1, 4), st.sampled_from([4, 8]), st.sampled_from(["source", "target"]))
@settings(deadline=None, max_examples=100)
def test_buckets_are_the_best_of_all_choices(pairs, buckets, multiple, frames_follow):
    """Every ratio and set of source boundaries is tried; the cost is counted pair by pair from the definition."""
    max_frames = {"source": lambda S, N: 2 * S, "target": lambda S, N: N}[frames_follow]
    chosen = choose(pairs, buckets=buckets, multiple=multiple, max_frames=max_frames)
    most = max(1, math.ceil(4 * np.quantile([n / s for s, n in pairs], 0.95)) / 4)
    longest_S, longest_N = (multiple * math.ceil(max(side) / multiple) for side in zip(*pairs))

    def shape(S, ratio):
        N = min(multiple * math.ceil(S * ratio / multiple), multiple * math.ceil(40 / multiple))
        return (S, max(N, longest_N) if longest_S == S else N)

    def cost(shapes):
        fitting = [shapes[smallest_fit(shapes, s, n)] for s, n in pairs]
        return sum(S + max_frames(S, N) for S, N in fitting)

    ratios = np.arange(1, most + 0.1, 0.25)
    choices = {
        (cost(shapes), -ratio, len(shapes)): shapes
        for ratio in ratios
        for count in range(buckets)
        for lower in itertools.combinations(range(multiple, longest_S, multiple), count)
        for shapes in [[shape(S, ratio) for S in (*lower, longest_S)]]
    }
    least, ratio, count = min(choices)
    shapes = [bucket[:2] for bucket in chosen]
    assert cost(shapes) == least
    assert len(chosen) == count
    assert shapes == [shape(S, -ratio) for S, _ in shapes]
    if frames_follow == "source":  # more room for targets costs nothing, so there is as much as 95% of the pairs need
        assert -ratio == most


def test_a_posterior_reads_the_target_too():
    """Where T is that of the source, an ample N is free for the loss, and not for a posterior that runs over it."""
    generator = np.random.default_rng(0)
    pairs = [
        (s, max(1, round(s * r))) for s, r in zip(generator.integers(4, 37, 400), generator.uniform(0.5, 1.1, 400))
    ]
    plain, read = choose(pairs), choose(pairs, posterior=True)

    def labels(shapes):
        return sum(shapes[smallest_fit([b[:2] for b in shapes], *pair)].N for pair in pairs)

    def positions(shapes):
        held = [shapes[smallest_fit([b[:2] for b in shapes], *pair)] for pair in pairs]
        return sum(b.S + b.T + b.S + b.N for b in held)

    assert labels(read) < labels(plain)
    assert positions(read) < positions(plain)
    assert choose(pairs, posterior=False) == plain


@given(lengths, st.integers(1, 6), st.sampled_from([1, 4, 8]), st.integers(1, 500), st.integers(1, 8))
@settings(deadline=None)
def test_every_pair_fits_and_every_batch_respects_the_frames(pairs, buckets, multiple, batch_frames, row_multiple):
    chosen = choose(pairs, buckets=buckets, multiple=multiple, batch_frames=batch_frames, row_multiple=row_multiple)
    assert 1 <= len(chosen) <= buckets
    assert [bucket.S for bucket in chosen] == sorted({bucket.S for bucket in chosen})
    assert smallest_fit([bucket[:2] for bucket in chosen], *map(max, zip(*pairs))) is not None
    for bucket in chosen:
        assert bucket.S % multiple == bucket.N % multiple == 0
        assert bucket.T == 2 * bucket.S
        if row_multiple * bucket.T <= batch_frames:
            assert bucket.rows % row_multiple == 0
            assert bucket.rows * bucket.T <= batch_frames < (bucket.rows + row_multiple) * bucket.T
        else:
            assert bucket.rows == max(1, batch_frames // bucket.T)


def test_frames_may_depend_on_the_target():
    (bucket,) = choose([(4, 8)] * 5, max_frames=lambda S, N: N)
    assert bucket == Bucket(S=4, N=8, T=8, rows=50)


def test_pairs_above_the_longest_length_are_left_out():
    pairs = [(4, 4), (3, 9), (12, 3), (8, 8)]
    chosen = choose(pairs, max_length=8)
    assert max(bucket.S for bucket in chosen) == max(bucket.N for bucket in chosen) == 8
    plan = Plan(*columns(pairs), chosen, seed=1)
    assert plan.left_out == 2
    held = [row for batch in sequential(*columns(pairs), chosen) for row in batch.rows]
    assert sorted(held) == [0, 3]
    with pytest.raises(ValueError, match="no pair has at most 2 pieces"):
        choose(pairs, max_length=2)
    with pytest.raises(ValueError, match="no row fits"):
        Plan(*columns([(90, 90)]), chosen, seed=1)


@given(lengths, st.integers(0, 2**40), st.integers(0, 3))
@settings(deadline=None)
def test_an_epoch_holds_every_row_once_in_a_shape_that_fits(pairs, seed, epoch):
    buckets = choose(pairs, batch_frames=200)
    source_lengths, target_lengths = columns(pairs)
    plan = Plan(source_lengths, target_lengths, buckets, seed)
    batches = [plan.batch(epoch * plan.batches_per_epoch + i) for i in range(plan.batches_per_epoch)]
    assert sorted(np.concatenate([batch.rows for batch in batches])) == list(range(len(pairs)))
    assert plan.left_out == 0
    for bucket, rows in batches:
        assert 1 <= len(rows) <= bucket.rows and rows.dtype == np.int64
        for row in rows:
            assert buckets[smallest_fit([b[:2] for b in buckets], *pairs[row])] == bucket
    for bucket in buckets:  # only one batch of a bucket is not full
        assert sum(len(batch.rows) < batch.bucket.rows for batch in batches if batch.bucket == bucket) <= 1


@given(lengths, st.integers(0, 1000), st.lists(st.integers(0, 60), min_size=1, max_size=10))
@settings(deadline=None)
def test_any_step_can_be_asked_for_at_any_time(pairs, seed, steps):
    buckets = choose(pairs, batch_frames=100)
    in_order = Plan(*columns(pairs), buckets, seed)
    order = [in_order.batch(step) for step in range(61)]
    wild = Plan(*columns(pairs), buckets, seed)
    for step in steps:
        got = wild.batch(step)
        assert got.bucket == order[step].bucket
        assert got.rows.tolist() == order[step].rows.tolist()


def _order(plan, epoch):
    steps = range(epoch * plan.batches_per_epoch, (epoch + 1) * plan.batches_per_epoch)
    return [row for step in steps for row in plan.batch(step).rows.tolist()]


def test_epochs_and_seeds_differ():
    pairs = [(1 + i % 30, 1 + i % 30) for i in range(200)]
    buckets = choose(pairs)
    plans = [Plan(*columns(pairs), buckets, seed) for seed in (1, 2)]
    orders = [_order(plan, epoch) for plan in plans for epoch in (0, 1)]
    assert all(a != b for a, b in itertools.combinations(orders, 2))


def test_every_row_is_equally_likely_at_every_place():
    """Mean place over epochs: uniform on 0..39 has mean 19.5 and standard deviation 11.54, batches of 4 or not."""
    pairs = [(4, 4)] * 40
    plan = Plan(*columns(pairs), (Bucket(4, 4, 8, 4),), seed=3)
    places = np.array([np.argsort(_order(plan, epoch)) for epoch in range(400)])
    assert np.abs(places.mean(0) - 19.5).max() < 5 * 11.54 / math.sqrt(400)
    neighbours = sum(abs(int(p[0]) - int(p[1])) == 1 for p in places)  # 2/40 of the epochs, were they independent
    assert abs(neighbours - 20) < 5 * math.sqrt(20)


def test_buckets_take_turns_at_random():
    """Two buckets of 50 batches each: independent neighbours differ 50 times in an epoch, standard deviation 5."""
    pairs = [(4, 4), (8, 8)] * 50
    plan = Plan(*columns(pairs), (Bucket(4, 4, 8, 1), Bucket(8, 8, 16, 1)), seed=5)
    epochs = [[plan.batch(epoch * 100 + i).bucket.S for i in range(100)] for epoch in range(20)]
    turns = [sum(a != b for a, b in itertools.pairwise(shapes)) for shapes in epochs]
    assert all(25 < count < 75 for count in turns)
    assert abs(np.mean(turns) - 50) < 5 * 5 / math.sqrt(20)


@given(lengths)
@settings(deadline=None)
def test_the_validation_order_is_that_of_the_rows_in_each_bucket(pairs):
    buckets = choose(pairs, batch_frames=100)
    batches = sequential(*columns(pairs), buckets)
    shapes = [bucket[:2] for bucket in buckets]
    expected = sorted(range(len(pairs)), key=lambda row: (smallest_fit(shapes, *pairs[row]), row))
    assert [row for batch in batches for row in batch.rows] == expected
    assert all(0 < len(batch.rows) <= batch.bucket.rows for batch in batches)


def test_many_buckets_cost_no_more_than_few():
    generator = np.random.default_rng(0)
    source = generator.integers(1, 500, 20_000)
    pairs = list(zip(source.tolist(), np.maximum(1, source + generator.integers(-5, 20, 20_000)).tolist()))
    sets = [choose(pairs, buckets=n, multiple=8, max_length=520) for n in (1, 2, 4, 8, 16)]
    costs = [sum(chosen[smallest_fit([b[:2] for b in chosen], *pair)].S for pair in pairs) for chosen in sets]
    assert [len(chosen) for chosen in sets] == [1, 2, 4, 8, 16]
    assert costs == sorted(costs, reverse=True)
    # Lengths are uniform here: k equal buckets waste 1/2k of the longest, as a share of the mean, half of it.
    assert costs[-1] / source.sum() < 1 + 1 / 16 + 0.06


def _order_by_definition(pairs, buckets, seed, epoch):
    """What runs that are under way rely on: the raw stream of Philox sorts each bucket's rows, then the batches."""
    generator = np.random.Philox(np.random.SeedSequence([seed, epoch]))
    shapes, batches = [bucket[:2] for bucket in buckets], []
    for i, bucket in enumerate(buckets):
        members = [row for row, pair in enumerate(pairs) if smallest_fit(shapes, *pair) == i]
        keys = generator.random_raw(len(members)).tolist()
        shuffled = [row for _, row in sorted(zip(keys, members))]
        batches += [(bucket, shuffled[k : k + bucket.rows]) for k in range(0, len(shuffled), bucket.rows)]
    keys = generator.random_raw(len(batches)).tolist()
    return [batches[i] for _, i in sorted(zip(keys, range(len(batches))))]


@given(lengths, st.integers(0, 1000), st.integers(0, 5))
@settings(deadline=None)
def test_the_order_is_that_of_the_definition(pairs, seed, epoch):
    buckets = choose(pairs, batch_frames=100)
    plan = Plan(*columns(pairs), buckets, seed)
    expected = _order_by_definition(pairs, buckets, seed, epoch)
    found = [plan.batch(epoch * plan.batches_per_epoch + i) for i in range(plan.batches_per_epoch)]
    assert [(bucket, rows.tolist()) for bucket, rows in found] == expected


@pytest.mark.parametrize("steps", ["in order", "to and fro"])
def test_an_order_that_is_made_ahead_is_the_same(monkeypatch, steps):
    pairs = [(1 + i % 30, 1 + i % 30) for i in range(200)]
    buckets = choose(pairs)
    plain = Plan(*columns(pairs), buckets, 1)
    n = plain.batches_per_epoch
    expected = [plain.batch(step).rows.tolist() for step in range(4 * n)]
    monkeypatch.setattr(module, "_AHEAD", 1)
    ahead = Plan(*columns(pairs), buckets, 1)
    made = []
    monkeypatch.setattr(ahead, "_make", lambda epoch: made.append(epoch) or Plan._make(ahead, epoch))
    order = {"in order": range(4 * n), "to and fro": [n - 1, 0, 3 * n - 1, n - 1, n, 2 * n, 3 * n, 2 * n - 1, n]}[steps]
    assert [ahead.batch(step).rows.tolist() for step in order] == [expected[step] for step in order]
    if steps == "in order":
        ahead._background.shutdown()
        assert made == [0, 1, 2, 3, 4]  # each once, and the next one before it is needed


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(1, 9)), min_size=1, max_size=30), st.floats(0, 1))
@settings(deadline=None)
def test_the_quantile_is_numpys(weighted, q):
    values, counts = np.array([v for v, _ in weighted]), np.array([n for _, n in weighted])
    assert module._quantile(values, counts, q) == np.quantile(np.repeat(values, counts), q)


@given(lengths, st.integers(1, 40), st.integers(1, 7))
@settings(deadline=None)
def test_pairs_of_lengths_are_counted(pairs, longest, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        source, target, counts = module._length_pairs(*columns(pairs), longest)
    expected = Counter(pair for pair in pairs if max(pair) <= longest)
    assert dict(zip(zip(source.tolist(), target.tolist()), counts.tolist(), strict=True)) == expected


def test_what_a_plan_takes_is_small():
    """Beside the lengths, which it is given: four bytes a row for its place, four for its order, sorting as it goes."""
    rows = 400_000
    generator = np.random.default_rng(0)
    source = generator.integers(1, 60, rows).astype(np.int32)
    target = np.maximum(1, source + generator.integers(-3, 10, rows)).astype(np.int32)
    tracemalloc.start()
    try:
        options = dict(buckets=6, multiple=8, max_length=80, batch_frames=4000, max_frames=lambda S, N: 2 * S)
        plan = Plan(source, target, choose_buckets(source, target, **options), seed=1)
        plan.batch(0)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 10 * rows and peak < 10 * rows + 20 * rows + 4_000_000
