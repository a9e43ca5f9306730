"""Autoregressive models as CTranslate2 folders: the same scores, from a C++ engine without Python or JAX.

CTranslate2's Transformer is natjax's, weight by weight; a weight is [out, in] there and [in, out] here. Position
vectors are written out as a table: CTranslate2's own sinusoids begin with position 1, natjax's with 0.
"""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from natjax import atomic
from natjax.config import Config
from natjax.data.vocab import Vocabularies
from natjax.errors import UserError
from natjax.export.readme import most_pieces, readme
from natjax.layers.position import sinusoids
from natjax.training.workdir import load_config, load_model
from natjax.typing import BOS, EOS, UNK, PyTree

# CTranslate2's bfloat16 and int8_bfloat16 need weights that are torch's tensors.
QUANTIZATIONS = ("float32", "float16", "int16", "int8", "int8_float32", "int8_float16")


def export(
    workdir: str | Path,
    output: str | Path,
    *,
    quantization: str = "float32",
    say: Callable[[str], None],
) -> None:
    """Writes a workdir's model as a folder for CTranslate2.

    Args:
        workdir: of `natjax train`; its best weights are taken, as for translating.
        output: the folder to make.
        quantization: how weights are stored, one of `QUANTIZATIONS`.
        say: told of damaged weights that are passed over.

    Raises:
        UserError: as `save`, or the workdir cannot be used.
    """
    _check(load_config(Path(workdir)), Path(output), quantization)
    config, vocabularies, params = load_model(Path(workdir), say)
    save(output, config, vocabularies, params, quantization=quantization)


def save(
    output: str | Path, config: Config, vocabularies: Vocabularies, params: PyTree, *, quantization: str = "float32"
) -> None:
    """Writes the folder: CTranslate2's files, the SentencePiece models, and a README.md that shows how to translate.

    Args:
        output: the folder, which must not exist, or be empty. It appears whole or not at all.
        config: the run's config.
        vocabularies: of the run.
        params: the model's parameters, float32.
        quantization: how weights are stored, one of `QUANTIZATIONS`.

    Raises:
        UserError: the model is not autoregressive, the folder is not free or cannot be written, or CTranslate2 is not
            installed.
    """
    _check(config, Path(output), quantization)
    spec = specification(config, vocabularies, params)
    spec.optimize(quantization=quantization)
    with atomic.new_folder(output, UserError) as folder:
        spec.save(str(folder))
        vocabularies.save(folder)
        atomic.write_text(folder / "README.md", readme(config, vocabularies, quantization))


def _check(config: Config, output: Path, quantization: str) -> None:
    """What can be known before anything is loaded."""
    if quantization not in QUANTIZATIONS:
        raise UserError(f"unknown quantization {quantization!r}; choose {', '.join(QUANTIZATIONS)}")
    if config.model.kind != "autoregressive":
        raise UserError(
            f"{config.name}: a non-autoregressive model, and CTranslate2 has no decoder for these; "
            "export an autoregressive one (model.kind), or translate with `natjax translate`"
        )
    try:
        taken = output.exists() and (not output.is_dir() or any(output.iterdir()))
    except OSError as error:
        raise UserError(f"{output}: cannot be used ({error.strerror}); name another folder") from None
    if taken:
        raise UserError(f"{output}: exists already; name a new folder")
    _ctranslate2()


def specification(config: Config, vocabularies: Vocabularies, params: PyTree) -> Any:
    """The model as a validated `ctranslate2.specs.TransformerSpec`, float32.

    Args:
        config: the run's config.
        vocabularies: of the run.
        params: the model's parameters; those of layers are stacked on axis 0.

    Raises:
        UserError: CTranslate2 is not installed.
    """
    model, specs = config.model, _ctranslate2().specs
    spec = specs.TransformerSpec.from_config(
        (model.encoder_layers, model.decoder_layers),
        model.heads,
        pre_norm=model.norm == "pre",
        activation={"gelu": specs.Activation.GELUTanh, "relu": specs.Activation.RELU}[model.activation],
    )
    source = params["source_embedding"]
    target = source if model.share_embeddings else params["output_embedding"]
    spec.encoder.embeddings[0].weight = _array(source["table"])
    spec.decoder.embeddings.weight = _array(target["table"])
    spec.decoder.projection.weight = _array(target["table"])
    spec.decoder.projection.bias = _array(params["output_bias"])
    for side, name in ((spec.encoder, "encoder"), (spec.decoder, "decoder")):
        side.scale_embeddings = model.positions == "sinusoidal"
        side.position_encodings.encodings = _positions(config, params, name)
        if model.norm == "pre":
            _norm(side.layer_norm, params[name]["norm"])
        for index, layer in enumerate(side.layer):
            _layer(layer, params[name]["layers"], index)
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = 1e-5  # of layers.linear.layer_norm
    pieces = vocabularies.target.pieces((UNK, BOS, EOS))
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = pieces
    spec.config.decoder_start_token = spec.config.bos_token
    spec.register_source_vocabulary(vocabularies.source.pieces(range(len(vocabularies.source))))
    spec.register_target_vocabulary(vocabularies.target.pieces(range(len(vocabularies.target))))
    spec.validate()
    return spec


def _ctranslate2() -> ModuleType:
    try:
        import ctranslate2.specs
    except ImportError:
        raise UserError("CTranslate2 is not installed; install it with `pip install 'natjax[peers]'`") from None
    return ctranslate2


def _positions(config: Config, params: PyTree, side: str) -> np.ndarray:
    if config.model.positions == "learned":
        return _array(params[f"{side}_positions"]["table"])
    return sinusoids(max(most_pieces(config)), config.model.width)


def _layer(layer: Any, params: PyTree, index: int) -> None:
    """One layer of either side; `params` are those of all layers."""

    def linear(spec: Any, kernel: Any, bias: Any) -> None:
        spec.weight, spec.bias = np.ascontiguousarray(_array(kernel[index]).T), _array(bias[index])

    def norm(spec: Any, name: str) -> None:
        _norm(spec, {key: value[index] for key, value in params[name].items()})

    own = params["self_attention"]
    for spec, part in zip(layer.self_attention.linear, (own["qkv"], own["out"]), strict=True):
        linear(spec, **part)
    norm(layer.self_attention.layer_norm, "self_attention_norm")
    if "cross_attention" in params:
        cross = params["cross_attention"]
        for spec, part in zip(layer.attention.linear, (cross["q"], cross["kv"], cross["out"]), strict=True):
            linear(spec, **part)
        norm(layer.attention.layer_norm, "cross_attention_norm")
    block = params["feed_forward"]
    linear(layer.ffn.linear_0, block["up_kernel"], block["up_bias"])
    linear(layer.ffn.linear_1, block["down_kernel"], block["down_bias"])
    norm(layer.ffn.layer_norm, "feed_forward_norm")


def _norm(spec: Any, params: PyTree) -> None:
    spec.gamma, spec.beta = _array(params["scale"]), _array(params["bias"])


def _array(value: Any) -> np.ndarray:
    return np.array(value, np.float32)  # a copy: CTranslate2 quantises in place
