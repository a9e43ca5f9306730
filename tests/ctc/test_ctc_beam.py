"""Prefix beam search against all alignments, against dictionaries, and against flashlight-text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc.plain_search import every_alignment, prefix_search, random_log_probs, ranked, translation_like
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax import ctc
from natjax.ctc import _beam


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Bigrams:
    """A language model as a table f32[V, V]: a state is the token before."""

    table: jax.Array

    def start(self):
        return jnp.int32(1)

    def score(self, state, token):
        return self.table[state, token], token


def bigrams(generator, V):
    return random_log_probs(generator, V, V, 1.5)


def listed(found, row=0):
    """[(score, tokens, ctc, lm)] of the prefixes that exist."""
    each = zip(*(np.asarray(x[row]) for x in found), strict=True)
    return [
        (score, tuple(tokens[:length].tolist()), ctc_score, lm)
        for tokens, length, score, ctc_score, lm in each
        if score > -np.inf
    ]


def assert_same(found, expected, tolerance):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose([one[0], one[2], one[3]], [other[0], other[2], other[3]], atol=tolerance, rtol=0)
    # Equally good ones may stand in either order.
    assert {one[1] for one in found} == {other[1] for other in expected}
    for one, other in zip(found, expected, strict=True):
        near = [e[1] for e in expected if abs(e[0] - other[0]) < 2 * tolerance]
        assert one[1] in near


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(3, 5), st.floats(0, 2), st.floats(-2, 3),
    st.sampled_from(["linear", "log"]), st.booleans(), st.booleans(), st.floats(0.1, 4),
)  # fmt: skip
@settings(deadline=None, max_examples=40)
def test_a_wide_beam_sums_over_all_alignments(seed, T, V, alpha, beta, form, with_lm, with_eos, scale):
    generator = np.random.default_rng(seed)
    log_probs, table = random_log_probs(generator, T, V, scale), bigrams(generator, V)
    lm = Bigrams(jnp.asarray(table, jnp.float32)) if with_lm else None
    eos = with_lm and with_eos
    found = ctc.beam_search(
        jnp.asarray(log_probs[None] + generator.normal(), jnp.float32), jnp.array([T]), beam_size=1400, top_k=V - 1,
        lm=lm, lm_weight=alpha, length_bonus=beta, length_bonus_form=form, score_eos=eos,
    )  # fmt: skip
    expected = ranked(every_alignment(log_probs), alpha=alpha, beta=beta, form=form, table=table if with_lm else None,
                      eos=2 if eos else None)  # fmt: skip
    assert_same(listed(found), expected, 2e-4)
    for score, tokens, mass, _ in listed(found)[:3]:
        loss = ctc.ctc_loss(jnp.asarray(log_probs[None], jnp.float32), jnp.array([T]), jnp.array([[*tokens, 0]]),
                            jnp.array([len(tokens)]))  # fmt: skip
        np.testing.assert_allclose(mass, -loss[0], atol=2e-4)
        assert score > -np.inf


def pruned_of(log_probs, K):
    order = np.argsort(-log_probs[:, 1:], axis=1, kind="stable")[:, :K] + 1
    return order, np.take_along_axis(log_probs, order, axis=1), log_probs[:, 0]


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(2, 9),
    st.integers(1, 6),
    st.integers(1, 6),
    st.booleans(),
)
@settings(deadline=None, max_examples=40)
def test_a_narrow_beam_keeps_what_dictionaries_keep(seed, T, V, W, K, with_lm):
    generator = np.random.default_rng(seed)
    K = min(K, V - 1)
    # As float32, so that ties and near ties fall the same way.
    log_probs = random_log_probs(generator, T, V, 2.0).astype(np.float32).astype(np.float64)
    table = bigrams(generator, max(V, 3))
    options = dict(alpha=0.5, beta=0.7, table=table) if with_lm else {}
    tokens, kept, blank = pruned_of(log_probs, K)
    expected = prefix_search(tokens, kept, blank, beam=W, **options)
    lm = Bigrams(jnp.asarray(table, jnp.float32)) if with_lm else None
    pruned = ctc.Pruned(*(jnp.asarray(x[None].astype(t)) for x, t in zip((tokens, kept, blank), "iff")))
    found = ctc.beam_search(pruned, jnp.array([T]), beam_size=W, top_k=K, lm=lm,
                            lm_weight=options.get("alpha", 0.0), length_bonus=options.get("beta", 0.0))  # fmt: skip
    assert_same(listed(found), expected, 1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_at_full_size_the_same_lists_as_with_dictionaries(seed):
    generator = np.random.default_rng(seed)
    T, V = 90, 32_000
    logits = translation_like(generator, T, V)
    pruned = ctc.prune(jnp.asarray(logits[None]), 20)
    table = generator.normal(-6, 2, V)
    found = ctc.beam_search(pruned, jnp.array([T]), lm=Unigrams(jnp.asarray(table, jnp.float32)), lm_weight=0.4,
                            length_bonus=2.2)  # fmt: skip
    parts = [np.asarray(x[0], np.float64) for x in pruned]
    expected = prefix_search(parts[0].astype(int), parts[1], parts[2], beam=20, alpha=0.4, beta=2.2, table=_Rows(table))
    assert_same(listed(found), expected, 2e-3)
    assert len(expected[0][1]) > 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Unigrams:
    """A language model without memory."""

    table: jax.Array

    def start(self):
        return jnp.int32(0)

    def score(self, state, token):
        return self.table[token], state


class _Rows:
    """The same as a table of pairs, for the oracle."""

    def __init__(self, table):
        self.table = table

    def __getitem__(self, pair):
        return self.table[pair[1]]


def frames(seed=0, B=3, T=7, V=6):
    return jnp.asarray(np.random.default_rng(seed).normal(0, 2, (B, T, V)), jnp.float32)


def test_company_and_padding_change_nothing():
    logits, lengths = frames(), jnp.array([7, 4, 0])
    found = ctc.beam_search(logits, lengths, beam_size=5, top_k=3, length_bonus=0.5)
    other = ctc.beam_search(jnp.concatenate([frames(9)[:2], logits[:2]]), jnp.array([3, 7, 7, 4]), beam_size=5, top_k=3,
                            length_bonus=0.5)  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:2], b[2:]), found, other)
    junk = logits.at[1, 4:].set(1e30)
    again = ctc.beam_search(junk, lengths, beam_size=5, top_k=3, length_bonus=0.5)
    jax.tree.map(np.testing.assert_array_equal, found, again)
    short = ctc.beam_search(logits[1:2, :4], jnp.array([4]), beam_size=5, top_k=3, length_bonus=0.5)
    np.testing.assert_array_equal(found.tokens[1:2, :, :4], short.tokens)
    np.testing.assert_allclose(found.scores[1:2], short.scores, rtol=1e-6)
    # A row without frames has the empty prefix, and nobody else.
    assert listed(found, 2) == [(0.0, (), 0.0, 0.0)]
    assert found.lengths[2].tolist() == [0] * 5 and (found.tokens[2] == 0).all()
    assert (found.lm_scores[2, 1:] == -jnp.inf).all() and (found.ctc_scores[2, 1:] == -jnp.inf).all()


def test_no_frames_at_all():
    found = ctc.beam_search(jnp.zeros((2, 0, 4)), jnp.array([0, 0]), beam_size=2, top_k=2)
    assert found.tokens.shape == (2, 2, 0)
    assert listed(found) == [(0.0, (), 0.0, 0.0)]


def test_a_row_with_nan_is_alone_with_it():
    logits = frames()
    broken = logits.at[1, 2, 3].set(jnp.nan)
    found, whole = (ctc.beam_search(x, jnp.array([7, 7, 7]), beam_size=4, top_k=5) for x in (broken, logits))
    assert np.isnan(found.scores[1]).any()
    for row in (0, 2):
        jax.tree.map(lambda a, b, row=row: np.testing.assert_array_equal(a[row], b[row]), found, whole)


def test_slots_without_mass_never_pass_for_a_prefix():
    """Fewer prefixes than slots for many frames: what is chosen to fill the beam must gain nothing later."""
    generator = np.random.default_rng(3)
    for T in (2, 4, 6):
        log_probs = random_log_probs(generator, T, 2, 1.0)
        found = ctc.beam_search(jnp.asarray(log_probs[None], jnp.float32), jnp.array([T]), beam_size=64, top_k=1)
        assert_same(listed(found), ranked(every_alignment(log_probs)), 1e-4)
        np.testing.assert_allclose(np.exp(np.asarray(found.ctc_scores[0])).sum(), 1.0, rtol=1e-5)


def test_names_that_collide_do_harm_and_so_are_noticed(monkeypatch):
    """With names of a few bits the search goes wrong: so the test of full names can fail, and they do the work."""
    generator = np.random.default_rng(0)
    log_probs = random_log_probs(generator, 5, 5, 0.5)
    expected = ranked(every_alignment(log_probs))
    logits = jnp.asarray(log_probs[None], jnp.float32)
    good = listed(ctc.beam_search(logits, jnp.array([5]), beam_size=1400, top_k=4))
    mix = _beam._mix
    monkeypatch.setattr(_beam, "_mix", lambda x: mix(x) & np.uint32(0xF))
    jax.clear_caches()
    bad = listed(ctc.beam_search(logits, jnp.array([5]), beam_size=1400, top_k=4))
    jax.clear_caches()
    assert_same(good, expected, 1e-4)
    assert len(bad) != len(expected) or not np.allclose([b[0] for b in bad], [e[0] for e in expected], atol=1e-2)


def test_names_of_many_prefixes_differ():
    """A million prefixes of two tokens, and their names: by chance alone two would share one with probability 1e-7."""
    tokens = jnp.arange(1000, dtype=jnp.int32)
    root = _beam._start(1, 1, None).name
    first = _beam._named(jnp.broadcast_to(root, (1, 1000, 2)), tokens[None])
    second = _beam._named(jnp.repeat(first, 1000, axis=1), jnp.tile(tokens, 1000)[None])
    halves = np.asarray(second[0]).astype(np.uint64)
    names = halves[:, 0] << np.uint64(32) | halves[:, 1]
    assert len(np.unique(names)) == len(names)
    # Each half alone is like random: about n²/2³³ = 116 pairs share one.
    for half in halves.T:
        assert 60 < len(half) - len(np.unique(half)) < 180


def test_weights_need_no_other_program():
    logits, lengths = frames(), jnp.array([7, 7, 7])
    lm = Bigrams(jnp.zeros((6, 6)))
    before = _beam._searched_logits._cache_size()
    for alpha, beta in ((0.1, 0.2), (jnp.float32(0.3), 5.0), (0.0, -1.0)):
        ctc.beam_search(logits, lengths, beam_size=3, top_k=2, lm=lm, lm_weight=alpha, length_bonus=beta)
    assert _beam._searched_logits._cache_size() == before + 1


def test_a_wider_beam_finds_nothing_worse():
    logits, lengths = frames(4, B=6, T=12, V=9), jnp.full((6,), 12)
    best = [ctc.beam_search(logits, lengths, beam_size=W, top_k=8).scores[:, 0] for W in (1, 4, 40, 400)]
    assert (np.diff(np.asarray(best)[[0, 1, 3]], axis=0) > -1e-4).mean() > 0.8
    assert (best[3] >= best[0] - 1e-4).all()


@pytest.mark.parametrize("blank", [0, 3, 7])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pruning_keeps_the_best_tokens_and_the_blank(blank, dtype):
    generator = np.random.default_rng(blank)
    hidden = jnp.asarray(generator.normal(0, 1, (2, 5, 4)), dtype)
    kernel, bias = (
        jnp.asarray(generator.normal(0, 2, (4, 8)), dtype),
        jnp.asarray(generator.normal(0, 1, 8), jnp.float32),
    )
    logits = np.asarray(hidden, np.float64) @ np.asarray(kernel, np.float64) + np.asarray(bias, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for K in (1, 4, 7):
        for found in (
            ctc.linear_pruned(hidden, kernel, K, bias=bias, blank_id=blank),
            ctc.prune(jnp.asarray(logits, jnp.float32), K, blank_id=blank),
        ):
            np.testing.assert_allclose(found.blank, log_probs[..., blank], atol=2e-2 if dtype != jnp.float32 else 1e-5)
            others = np.delete(log_probs, blank, axis=2)
            np.testing.assert_allclose(
                found.log_probs, -np.sort(-others, axis=2)[..., :K], atol=2e-2 if dtype != jnp.float32 else 1e-5
            )
            assert (found.tokens != blank).all()
            picked = np.take_along_axis(log_probs, np.asarray(found.tokens), axis=2)
            np.testing.assert_allclose(found.log_probs, picked, atol=2e-2)


def test_mistakes():
    logits, lengths = frames(), jnp.array([7, 7, 7])
    pruned = ctc.prune(logits, 3)
    for arguments, options, message in (
        ((logits, lengths), {"top_k": 6}, r"top_k must lie in 1\.\.5 \(V = 6, one the blank\), got 6"),
        ((logits, lengths), {"top_k": 0}, "top_k must lie in"),
        ((logits, lengths), {"top_k": 2, "beam_size": 0}, "beam_size must be at least 1"),
        ((logits, lengths), {"top_k": 2, "length_bonus_form": "cubic"}, "length_bonus_form must be"),
        ((logits, lengths), {"top_k": 2, "score_eos": True}, "score_eos needs a language model"),
        ((logits, lengths), {"top_k": 2, "blank_id": 6}, "blank_id must lie in 0..5"),
        ((logits, lengths[:2]), {"top_k": 2}, "batch dimensions differ"),
        ((logits[0], lengths), {"top_k": 2}, r"\[B, T, V\]"),
        ((pruned, lengths), {"top_k": 4}, r"top_k must lie in 1\.\.3 \(so many tokens a frame are left\), got 4"),
        ((pruned._replace(blank=pruned.blank[:, :3]), lengths), {"top_k": 2}, "the parts of Pruned must be"),
        ((logits, lengths), {"top_k": 2, "implementation": ctc.Implementation.BLOCKS}, "implementation must be"),
    ):
        with pytest.raises(ValueError, match=message):
            ctc.beam_search(*arguments, **options)
    with pytest.raises(TypeError, match="floating"):
        ctc.beam_search(logits.astype(jnp.int32), lengths, top_k=2)


def test_flashlight_finds_the_same():
    decoder = pytest.importorskip("flashlight.lib.text.decoder")
    generator = np.random.default_rng(1)
    V, T, W, K, sentences, same, differences, pairs = 500, 40, 20, 20, 100, 0, [], []
    zero = decoder.ZeroLM()
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=W, beam_size_token=K, beam_threshold=1e9, lm_weight=0.0, sil_score=0.0, log_add=True,
        criterion_type=decoder.CriterionType.CTC,
    )  # fmt: skip
    theirs = decoder.LexiconFreeDecoder(options, zero, -1, 0, [])
    logits = np.stack([translation_like(generator, T, V) for _ in range(sentences)])
    ours = ctc.beam_search(jnp.asarray(logits), jnp.full((sentences,), T), beam_size=W, top_k=K)
    normalised = np.ascontiguousarray(jax.nn.log_softmax(jnp.asarray(logits), axis=-1))
    for row in range(sentences):
        best = theirs.decode(normalised[row].ctypes.data, T, V)[0]
        path = [token for token in best.tokens if token >= 0]
        tokens = [t for i, t in enumerate(path) if t != 0 and (i == 0 or path[i - 1] != t)]
        found = ours.tokens[row, 0, : ours.lengths[row, 0]].tolist()
        same += found == tokens
        differences.append(abs(best.score - float(ours.scores[row, 0])))
        pairs.append((found, tokens))
    # It keeps a prefix's alignments that end in blank apart from the others, so its beam is the narrower one, and a
    # best score lacks the smaller part. Where that matters, ours is the more probable by the sum over all alignments.
    assert same >= 0.95 * sentences
    assert np.quantile(differences, 0.95) < 0.05
    for row, (found, tokens) in enumerate(pairs):
        if found != tokens:
            frames = jnp.asarray(logits[row : row + 1]), jnp.array([T])
            losses = [float(ctc.ctc_loss(*frames, jnp.array([y]), jnp.array([len(y)]))[0]) for y in (found, tokens)]
            assert losses[0] <= losses[1] + 1e-3
