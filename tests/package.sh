#!/usr/bin/env bash
# Builds the wheel, installs it into a fresh environment and uses it from another folder, as a user would.
# Usage: VENV=.venv PYTHON=python3 bash tests/package.sh
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT

cd "$repository"
# Pins what the wheel needs, and setuptools, which `build` fetches with pip.
export PIP_CONSTRAINT=requirements.lock
"$repository/$VENV/bin/python" -m build --wheel --outdir "$elsewhere/dist" . > "$elsewhere/build.log" 2>&1 \
  || { cat "$elsewhere/build.log"; exit 1; }
"$repository/$VENV/bin/python" - "$elsewhere"/dist/natjax-*.whl << 'END'
import re, sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
made_by = next(wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/WHEEL"))
pinned = re.search(r"^setuptools==(.*)$", open("requirements.lock").read(), re.M)[1]
assert f"Generator: setuptools ({pinned})" in made_by, f"built by other tools than requirements.lock names:\n{made_by}"
END
"$PYTHON" -m venv "$elsewhere/venv"
"$elsewhere/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$elsewhere"/dist/natjax-*.whl

cd "$elsewhere"
unset PYTHONPATH
natjax="$elsewhere/venv/bin/natjax"
location=$("$elsewhere/venv/bin/python" -c 'import natjax; print(natjax.__file__)')
case "$location" in "$elsewhere"/venv/*) ;; *) echo "natjax came from $location, not from the wheel"; exit 1 ;; esac
"$natjax" --version
"$natjax" configs > listed.txt
grep -q '^demo ' listed.txt
"$natjax" configs copy demo --output small.py > /dev/null
grep -q get_config small.py
"$natjax" demo --help > help.txt
grep -q -- --workdir help.txt
"$natjax" train small.py --fields > fields.txt
grep -q training.steps fields.txt

# The demo's config, from the vocabulary to a translation, in a few updates.
"$natjax" prepare demo --data.store store
"$natjax" train demo --workdir run --data.store store --training.steps 4 --training.warmup_steps 1 \
  --training.cooldown_steps 0 --training.eval_every 4 --training.save_every 4 --training.eval_sentences 4 > scores.json
grep -q '"bleu"' scores.json
printf 'The old farmer sells the horse.\n\nHe sleeps.\n' > in.txt
"$natjax" translate --model run < in.txt > out.txt
test "$(wc -l < out.txt)" -eq 3
test -z "$(sed -n 2p out.txt)"
"$natjax" evaluate --hypothesis out.txt --reference in.txt --json > evaluated.json
grep -q '"bleu"' evaluated.json
echo "package: the wheel works from another folder"
