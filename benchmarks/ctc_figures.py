"""Draws the figures of docs/ctc.md (extra: plot).

    python benchmarks/ctc_figures.py growth
    python benchmarks/ctc_figures.py alignment --model runs/multi30k_en_de

growth reads benchmarks/results/ctc/growth.json. alignment aligns an English sentence and its German translation, both
written for this purpose, by a CTC model trained on Multi30k, and draws the best path over the occupancy.
"""

import argparse
import json
from pathlib import Path

import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from natjax import Translator, ctc, models
from natjax.layers.head import logits
from natjax.training import workdir

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
SOURCE, TARGET = "Two children are playing with a small dog.", "Zwei Kinder spielen mit einem kleinen Hund."


def growth() -> Path:
    """Time of loss with gradient over frames and over labels, both axes logarithmic."""
    metrics = json.loads((HERE / "results" / "ctc" / "growth.json").read_text())["metrics"]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True, layout="constrained")
    for axis, what in zip(axes, ("frames", "labels")):
        points = {int(k.split("_")[2]): v for k, v in metrics.items() if k.startswith("milli") and k.endswith(what)}
        sizes, times = np.array(list(points)), np.array(list(points.values()))
        axis.loglog(sizes, times, "o-", label="measured")
        axis.loglog(sizes, times[-1] * sizes / sizes[-1], "--", color="grey", label="proportional")
        axis.set_xlabel(what)
        axis.set_title(f"exponent {metrics[f'exponent_in_{what}']:.2f}")
    axes[0].set_ylabel("milliseconds")
    axes[0].legend()
    return _saved(figure, "ctc_growth.png")


def alignment(model: Path) -> Path:
    """Occupancy of every label and of the blank at each frame, and the best path as a line."""
    translator = Translator.load(model)
    config, vocabularies, params = workdir.load_model(model, print)
    source = [*vocabularies.source.encode([SOURCE])[0], 2]
    labels = vocabularies.target.encode([TARGET])[0]
    network = models.build(config, len(vocabularies.source), len(vocabularies.target))
    frames = translator.objective.max_frames(len(source), 0)
    head = network.apply({"params": params}, jnp.array([source]), jnp.array([len(source)]), frames)
    arguments = logits(head), jnp.array([frames]), jnp.array([labels]), jnp.array([len(labels)])
    occupancy_TL = np.asarray(ctc.occupancy(*arguments)[0])
    path_T = np.asarray(ctc.viterbi_alignment(*arguments).tokens[0])
    shown = np.concatenate([occupancy_TL[:, 1::2], occupancy_TL[:, 0::2].sum(1, keepdims=True)], axis=1)
    names = [*vocabularies.target.pieces(labels), "blank"]
    figure, axis = plt.subplots(figsize=(8, 3.6), layout="constrained")
    image = axis.imshow(shown.T, aspect="auto", cmap="Blues", vmin=0, vmax=1)
    label, places = -1, []
    for frame, token in enumerate(path_T):
        if token and (frame == 0 or token != path_T[frame - 1]):
            label += 1
        places.append(label if token else len(labels))
    axis.plot(range(frames), places, ".", color="darkorange", label="best path")
    axis.set_yticks(range(len(names)), names)
    axis.set_xticks(range(0, frames, 2))
    axis.set_xlabel(f"frame ({len(source)} source pieces, ratio {config.model.ratio:g})")
    axis.legend(loc="upper right")
    figure.colorbar(image, label="occupancy")
    return _saved(figure, "ctc_alignment.png")


def _saved(figure: plt.Figure, name: str) -> Path:
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / name, dpi=110)
    return IMAGES / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=["growth", "alignment"])
    parser.add_argument("--model", type=Path, help="a workdir of a CTC model of Multi30k, for alignment")
    args = parser.parse_args()
    if args.figure == "alignment" and args.model is None:
        parser.error("alignment needs --model")
    print(growth() if args.figure == "growth" else alignment(args.model))


if __name__ == "__main__":
    main()
