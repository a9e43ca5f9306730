#!/usr/bin/env bash
# Teacher, distillation, student: each step goes on where it was stopped, so run it again until it is done.
usage='usage: launch/distill.sh TEACHER STUDENT FOLDER SOURCE TARGET [-- OPTION... [-- OVERRIDE...]]

  TEACHER, STUDENT  configs: shipped names or files. The student names its training targets
                    as $NATJAX_DISTILLED/train.target, as configs/multi30k_en_de_kd.py does
  FOLDER            gets teacher/, distilled/ and student/
  SOURCE, TARGET    the training text that the teacher learns from: SOURCE is translated,
                    TARGET is compared with what comes out
  OPTION            goes to natjax distill, such as --beam 5 or --shard 1/2
  OVERRIDE          goes to the training of the student, such as --training.steps 8000

With --shard the student waits until the other shards are done, too: before that the script ends
with exit code 75. Whichever run finds all of them done trains it.

  launch/distill.sh multi30k_en_de_teacher_cpu multi30k_en_de_kd runs/multi30k \
      $NATJAX_DATA/multi30k/train.en $NATJAX_DATA/multi30k/train.de'
set -euo pipefail
if [ $# -lt 5 ] || { [ $# -gt 5 ] && [ "$6" != -- ]; }; then
  echo "$usage" >&2
  exit 2
fi
teacher=$1 student=$2 folder=$3 source=$4 target=$5
shift 5
[ $# -gt 0 ] && shift
options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  options+=("$1")
  shift
done
[ $# -gt 0 ] && shift

mkdir -p "$folder/distilled"
NATJAX_DISTILLED=$(cd "$folder/distilled" && pwd)
export NATJAX_DISTILLED
output=$NATJAX_DISTILLED/train.target
natjax train "$teacher" --workdir "$folder/teacher"
natjax distill --teacher "$folder/teacher" --source "$source" --target "$target" --output "$output" \
  ${options[@]+"${options[@]}"}
if [ ! -f "$output.json" ]; then
  echo "launch/distill.sh: $output is not whole yet; run this again when the other shards are done" >&2
  exit 75
fi
natjax train "$student" --workdir "$folder/student" "$@"
