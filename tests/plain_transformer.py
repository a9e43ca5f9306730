"""The autoregressive Transformer once more: numpy in float64, one sentence at a time, loops over layers and heads."""

import math

import numpy as np


def log_probs(params: dict, model, source: list[int], target: list[int]) -> np.ndarray:
    """log p(target[i] | target[:i], source), f64[N].

    Args:
        params: the parameter tree of a model.
        model: its `ModelConfig`.
        source: piece ids, eos included.
        target: piece ids, eos included.
    """
    rows = logits(params, model, source, target[:-1])
    return np.array([row[y] - _log_sum_exp(row) for row, y in zip(rows, target, strict=True)])


def logits(params: dict, model, source: list[int], target: list[int]) -> np.ndarray:
    """Logits of what follows target[:i], for i from 0 to N: f64[N + 1, V]; as `log_probs`, but for the target's eos."""
    params = _float64(params)
    source_table = params["source_embedding"]["table"]
    table = source_table if model.share_embeddings else params["output_embedding"]["table"]
    memory = _embed(params, model, "encoder", source_table, source)
    for index in range(model.encoder_layers):
        memory = _layer(_at(params["encoder"]["layers"], index), model, memory, None)
    if model.norm == "pre":
        memory = _norm(memory, params["encoder"]["norm"])
    x = _embed(params, model, "decoder", table, [1, *target])
    for index in range(model.decoder_layers):
        x = _layer(_at(params["decoder"]["layers"], index), model, x, memory)
    if model.norm == "pre":
        x = _norm(x, params["decoder"]["norm"])
    return x @ table.T + params["output_bias"]


def _embed(params, model, side, table, ids):
    sinusoidal = model.positions == "sinusoidal"
    x = table[ids] * (math.sqrt(model.width) if sinusoidal else 1.0)
    for place in range(len(ids)):
        if sinusoidal:
            half = model.width // 2
            for i in range(half):
                angle = place / 10_000 ** (i / max(half - 1, 1))
                x[place, i] += math.sin(angle)
                x[place, half + i] += math.cos(angle)
        else:
            x[place] += params[f"{side}_positions"]["table"][place]
    return x


def _layer(p, model, x, memory):
    def residual(x, block, norm):
        return x + block(_norm(x, norm)) if model.norm == "pre" else _norm(x + block(x), norm)

    def own(x):
        qkv = x @ p["self_attention"]["qkv"]["kernel"] + p["self_attention"]["qkv"]["bias"]
        return _dense(_attend(*np.split(qkv, 3, axis=-1), model.heads, memory is not None), p["self_attention"]["out"])

    def cross(x):
        q, kv = _dense(x, p["cross_attention"]["q"]), _dense(memory, p["cross_attention"]["kv"])
        return _dense(_attend(q, *np.split(kv, 2, axis=-1), model.heads, False), p["cross_attention"]["out"])

    def feed_forward(x):
        f = p["feed_forward"]
        h = x @ f["up_kernel"] + f["up_bias"]
        if model.activation == "relu":
            h = np.maximum(h, 0)
        else:
            h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
        return h @ f["down_kernel"] + f["down_bias"]

    x = residual(x, own, p["self_attention_norm"])
    if memory is not None:
        x = residual(x, cross, p["cross_attention_norm"])
    return residual(x, feed_forward, p["feed_forward_norm"])


def _attend(query, key, value, heads, causal):
    width = query.shape[1] // heads
    mixed = np.zeros_like(query)
    for h in range(heads):
        part = slice(h * width, (h + 1) * width)
        for i, q in enumerate(query):
            seen = i + 1 if causal else len(key)
            scores = key[:seen, part] @ q[part] / math.sqrt(width)
            mixed[i, part] = np.exp(scores - _log_sum_exp(scores)) @ value[:seen, part]
    return mixed


def _dense(x, p):
    return x @ p["kernel"] + p["bias"]


def _norm(x, p):
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]


def _log_sum_exp(x):
    return x.max() + np.log(np.exp(x - x.max()).sum())


def _at(tree, index):
    return {k: _at(v, index) if isinstance(v, dict) else v[index] for k, v in tree.items()}


def _float64(tree):
    return {k: _float64(v) if isinstance(v, dict) else np.asarray(v, np.float64) for k, v in tree.items()}
