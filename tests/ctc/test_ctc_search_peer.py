"""beam_search against flashlight-text's decoder without a lexicon, with KenLM; where they are installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ctc_search_oracle import TableScorer, collapsed, hypotheses, peaky

from natjax import ctc

decoder = pytest.importorskip("flashlight.lib.text.decoder")
kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
dictionary = pytest.importorskip("flashlight.lib.text.dictionary")

VOCABULARY, FRAMES, ROWS = 60, 70, 40
SPECIAL = {1: "<s>", 2: "</s>", 3: "<unk>"}
WORDS = [SPECIAL.get(i, f"w{i}") for i in range(VOCABULARY)]


@pytest.fixture(scope="module")
def bigrams():
    """log p(column | row), the row of <s> in place of the blank's; <s> and the blank are never predicted."""
    logits = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY), scale=1.5)
    logits[:, :2] = -200.0
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def arpa(bigrams, tmp_path_factory):
    """The same as a file."""
    log10, known = bigrams / np.log(10), range(2, VOCABULARY)
    lines = [f"{log10[0, i] if i > 1 else -99:.7f}\t{WORDS[i]}\t0" for i in range(1, VOCABULARY)]
    pairs = [f"{log10[0 if i == 1 else i, j]:.7f}\t{WORDS[i]} {WORDS[j]}" for i in (1, *known) if i != 2 for j in known]
    head = f"\\data\\\nngram 1={len(lines)}\nngram 2={len(pairs)}\n"
    path = tmp_path_factory.mktemp("lm") / "bigrams.arpa"
    path.write_text("\n".join([head, "\\1-grams:", *lines, "", "\\2-grams:", *pairs, "", "\\end\\", ""]))
    return str(path)


def theirs(log_probs, lm, weight, beam_size, top_k):
    """(tokens, score) of the best hypothesis of each row."""
    options = decoder.LexiconFreeDecoderOptions(
        beam_size=beam_size, beam_size_token=top_k + 1, beam_threshold=1e9, lm_weight=weight, sil_score=0.0,
        log_add=True, criterion_type=decoder.CriterionType.CTC,
    )  # fmt: skip
    engine = decoder.LexiconFreeDecoder(options, lm, -1, 0, [])
    best = []
    for row in np.ascontiguousarray(log_probs):
        found = engine.decode(row.ctypes.data, *row.shape)[0]
        best.append((tuple(token for token in collapsed(found.tokens, 0) if token > 0), found.score))
    return best


@pytest.mark.parametrize("alpha", [0.0, 0.4])
# The less sure the frames, the wider a beam that leaves little outside; else both find less than there is, each its own
# share of that.
@pytest.mark.parametrize(("sharpness", "doubt", "beam_size"), [(2.5, 3.0, 50), (1.5, 6.0, 100)])
def test_best_hypotheses_and_scores_are_those_of_flashlight(alpha, sharpness, doubt, beam_size, bigrams, arpa):
    logits = sharpness * peaky(9, ROWS, FRAMES, VOCABULARY, tokens=20, doubt=doubt)
    logits[:, :, 1:4] = -30.0
    logits[:, -1, 0] += 30.0  # it counts only those alignments that end alike
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits), axis=-1))
    options, lm = {"beam_size": beam_size, "top_k": 20}, decoder.ZeroLM()
    if alpha:
        following = np.broadcast_to(np.arange(VOCABULARY, dtype=np.int32), bigrams.shape)
        scorer = TableScorer(jnp.asarray(bigrams, jnp.float32), jnp.asarray(following))
        options |= {"lm": scorer, "lm_weight": alpha, "score_eos": True}  # it always scores the end
        words = dictionary.Dictionary()
        for word in WORDS:
            words.add_entry(word)
        words.set_default_index(3)
        lm = kenlm.KenLM(arpa, words)
    result = ctc.beam_search(jnp.asarray(logits), jnp.full(ROWS, FRAMES), **options)
    ours = [hypotheses(result, row)[0][:2] for row in range(ROWS)]
    # Its probabilities are KenLM's, to base 10; and it takes two places for a prefix that ends in either way.
    peer = theirs(log_probs, lm, alpha * np.log(10), 2 * beam_size, 20)
    assert np.mean([a == b for (a, _), (b, _) in zip(ours, peer, strict=True)]) >= 0.95
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in peer], rtol=0, atol=0.05)
    assert len({tokens for tokens, _ in ours}) == ROWS
    # The search has found them: the most probable tokens of the frames are others.
    greedy = [collapsed(row.argmax(axis=-1).tolist(), 0) for row in log_probs]
    assert np.mean([path == tokens for path, (tokens, _) in zip(greedy, peer, strict=True)]) < (0.1 if alpha else 0.9)
