#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh environment and uses it from another folder, as a user would.
# Usage: VENV=.venv PYTHON=python3 bash tests/package.sh
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT

cd "$repository"
"$repository/$VENV/bin/python" -m build --wheel --outdir "$elsewhere/dist" . > "$elsewhere/build.log" 2>&1 \
  || { cat "$elsewhere/build.log"; exit 1; }
"$PYTHON" -m venv "$elsewhere/venv"
"$elsewhere/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  -c requirements.lock "$elsewhere"/dist/natjax-*.whl

cd "$elsewhere"
unset PYTHONPATH
natjax="$elsewhere/venv/bin/natjax"
location=$("$elsewhere/venv/bin/python" -c 'import natjax; print(natjax.__file__)')
case "$location" in "$elsewhere"/venv/*) ;; *) echo "natjax came from $location, not from the wheel"; exit 1 ;; esac
"$natjax" --version
"$natjax" configs > listed.txt
grep -q '^demo ' listed.txt
"$natjax" configs copy demo --output small.py > /dev/null
"$natjax" train small.py --workdir run --training.steps 3 --training.warmup_steps 1 --training.cooldown_steps 0 \
  --training.eval_every 3 --training.save_every 3 --training.eval_sentences 4 > scores.json
grep -q '"bleu"' scores.json
printf 'The old farmer sells the horse.\n\n' | "$natjax" translate --model run > out.txt
test "$(wc -l < out.txt)" -eq 2
echo "package: the wheel works from another folder"
