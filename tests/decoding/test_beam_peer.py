"""What docs/export.md says of CTranslate2's search: a model without attention, searched by it and by plain Python."""

import beam_oracle as oracle
import numpy as np
import pytest

ctranslate2 = pytest.importorskip("ctranslate2")
V, D, LONGEST = 7, 8, 8


class Toy:
    """All layers add nothing, so that logits depend on the last token and its position alone."""

    def __init__(self, rng, folder):
        from ctranslate2.specs import TransformerSpec

        self.table, self.positions = rng.normal(size=(V, D)), rng.normal(size=(LONGEST + 2, D)) * 2
        self.kernel, self.bias = rng.normal(size=(V, D)) * 0.4, np.zeros(V)
        spec = TransformerSpec.from_config((1, 1), 1, pre_norm=False)

        def linear(part, outputs, inputs):
            part.weight, part.bias = np.zeros((outputs, inputs), np.float32), np.zeros(outputs, np.float32)

        def norm(part):
            part.gamma, part.beta = np.ones(D, np.float32), np.zeros(D, np.float32)

        for side in (spec.encoder, spec.decoder):
            embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
            embeddings.weight = self.table.astype(np.float32)
            side.position_encodings.encodings = self.positions.astype(np.float32)
            (layer,) = side.layer
            linear(layer.self_attention.linear[0], 3 * D, D)
            linear(layer.self_attention.linear[1], D, D)
            linear(layer.ffn.linear_0, D, D)
            linear(layer.ffn.linear_1, D, D)
            norm(layer.self_attention.layer_norm)
            norm(layer.ffn.layer_norm)
        for part, outputs in zip(layer.attention.linear, (D, 2 * D, D), strict=True):
            linear(part, outputs, D)
        norm(layer.attention.layer_norm)
        spec.decoder.projection.weight = self.kernel.astype(np.float32)
        spec.decoder.projection.bias = self.bias.astype(np.float32)
        words = ["<pad>", "<s>", "</s>", "<unk>", *"abcdef"[: V - 4]]
        spec.register_source_vocabulary(words)
        spec.register_target_vocabulary(words)
        spec.config.decoder_start_token = "<s>"
        folder.mkdir()
        spec.validate()
        spec.save(str(folder))
        self.words = words
        self.peer = ctranslate2.Translator(str(folder), inter_threads=1, intra_threads=1)

    def __call__(self, tokens):
        x = self.table[[oracle.BOS, *tokens][-1]] * D**0.5 + self.positions[len(tokens)]
        x = (x - x.mean()) / x.std()
        return self.kernel @ x + self.bias


@pytest.mark.parametrize("penalty", [0.6, 1.0, 2.0])
def test_the_peer_keeps_the_best_and_forces_no_eos(tmp_path, penalty):
    unended = 0
    for seed in range(8):
        toy = Toy(np.random.default_rng(seed), tmp_path / str(seed))
        limit, W = 3 + seed % 4, 2 + seed % 3
        (found,) = toy.peer.translate_batch(
            [["a"]], beam_size=W, num_hypotheses=W, length_penalty=penalty, max_decoding_length=limit,
            return_scores=True, suppress_sequences=[["<pad>"], ["<s>"]],
        )  # fmt: skip

        def model(tokens, toy=toy):
            # It suppresses tokens before the softmax, eos before the first token too; so they have no mass here.
            return np.where(np.arange(V) < (2 if tokens else 3), -1e30, toy(tokens))

        expected, _ = oracle.search(model, W, limit, penalty=penalty, forced_eos=False, keep_best=True)
        assert [[toy.words.index(word) for word in words] for words in found.hypotheses] == [e.tokens for e in expected]
        np.testing.assert_allclose(found.scores, [e.score for e in expected], atol=1e-4)
        unended += sum(len(e.tokens) == limit for e in expected)
    assert unended  # the limit counts
