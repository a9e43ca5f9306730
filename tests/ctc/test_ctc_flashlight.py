"""Prefix beam search against flashlight-text, a decoder in C++."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from natjax import ctc


def translation_like(generator, T, V):
    """Logits f32[T, V] as of a trained model: many blanks, tokens that return in the next frame, most frames sure."""
    logits = generator.normal(0, 1.0, (T, V)).astype(np.float32)
    for t in range(T):
        logits[t, generator.integers(4, V, 3)] += generator.uniform(8, 14, 3).astype(np.float32)
        if t and generator.random() < 0.5:
            logits[t, np.argsort(-logits[t - 1])[: 2 + t % 2]] += 10
        logits[t, 0] += generator.uniform(8, 16)
        if generator.random() < 0.8:
            logits[t, logits[t].argmax()] += 5
    return logits


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
