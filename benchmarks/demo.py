"""Times `make demo` on a fresh clone, installation included, and writes what it showed.

    python benchmarks/demo.py

Writes benchmarks/results/demo.json. Nothing else should run on the machine meanwhile.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def main() -> None:
    from natjax.evaluation.report import write_result

    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "natjax"
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
        # As on a machine that has never compiled anything.
        environment = {**os.environ, "NATJAX_CACHE": str(Path(folder) / "cache"), "PIP_NO_CACHE_DIR": "1"}
        started = time.perf_counter()
        subprocess.run(["make", "demo"], cwd=clone, check=True, env=environment)
        wall = time.perf_counter() - started
        shown = json.loads((clone / "runs/demo/demo.json").read_text())
    rows = {row["system"]: row for row in shown["systems"]}
    names = "CTC", "CTC, plain argmax", "vanilla NAT, predicted length", "vanilla NAT, golden length"
    ctc, plain, vanilla, golden = (rows[name] for name in names)
    metrics = {"minutes": wall / 60, "updates": shown["updates"],
               "bleu": ctc["bleu"], "exactly_valid": ctc["exactly_valid"],
               "bleu_above_vanilla": ctc["bleu"] - vanilla["bleu"], "ms_a_sentence": ctc["milliseconds"],
               "plain_argmax_bleu": plain["bleu"], "plain_argmax_exactly_valid": plain["exactly_valid"],
               "vanilla_bleu": vanilla["bleu"], "vanilla_exactly_valid": vanilla["exactly_valid"],
               "vanilla_golden_bleu": golden["bleu"],
               "vanilla_golden_exactly_valid": golden["exactly_valid"]}  # fmt: skip
    write_result(
        REPOSITORY / "benchmarks/results/demo.json",
        name="demo",
        command=" ".join(["python", *sys.argv]),
        data=shown["data"],
        seed=shown["seed"],
        wall_seconds=wall,
        metrics=metrics,
        targets={"minutes": 8, "bleu": 90, "exactly_valid": 80, "bleu_above_vanilla": 15},
    )
    print(json.dumps(metrics, indent=2))


if __name__ == "__main__":
    main()
