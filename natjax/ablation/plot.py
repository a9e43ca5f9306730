"""The table of a grid as a picture: what was measured, and beside it the paper's numbers."""

import io
from collections.abc import Sequence

from natjax.ablation.results import RowResult

_COLOURS = {"ce": "#4477aa", "axe": "#cc7722", "ctc": "#228855"}


def png(results: Sequence[RowResult], title: str) -> bytes | None:
    """The picture; None where matplotlib is not installed.

    Left: mean BLEU of each row, every run a dot. Right: the paper's BLEU, which is of other data and comparable in
    its order alone.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=(10, 1.2 + 0.34 * len(results)), layout="constrained")
    FigureCanvasAgg(figure)
    here, paper = figure.subplots(1, 2, sharey=True)
    places = range(len(results))
    colours = [_COLOURS.get(result.row.loss, "#555555") for result in results]
    here.barh(places, [result.mean("bleu") or 0.0 for result in results], color=colours, alpha=0.55)
    for place, result in zip(places, results):
        runs = result.values("bleu")
        here.plot(runs, [place] * len(runs), "o", color="black", markersize=3)
        if not runs:
            here.annotate("not run", (0, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    paper.barh(places, [result.row.paper_bleu for result in results], color=colours, alpha=0.55)
    here.set_yticks(places, [result.row.label for result in results])
    here.invert_yaxis()  # the table's order; the other side shares it
    here.set_xlabel("BLEU here (dots: runs)")
    paper.set_xlabel("paper's BLEU, WMT14 En-De")
    figure.suptitle(title, fontsize=9, wrap=True)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
