#!/usr/bin/env bash
# The paper's size on one GPU: the six figures, the whole 90-epoch search, the derived network and ViT-B/16 under one recipe.
#
#   benchmarks/paper.sh DIR OUT MINUTES [--section.field VALUE ...]
#
# In the environment that dasvit is installed in. DIR: CIFAR-10, as for --data.path. OUT: where everything goes. MINUTES:
# after so many each run stops with a checkpoint. The same call goes on with what is not done. No network is needed. What
# comes out is small: OUT/bench.json, and in each run folder report.html, metrics.jsonl, genotype.json and result.json.
set -euo pipefail
(($# >= 3)) || { sed -n '2,8p' "$0"; exit 2; }
data=$1 out=$2 minutes=$3
shift 3
recipe=(--config cifar10-paper --data.path "$data" "$@")
here=$(dirname "$0")

mkdir -p "$out"
if [[ ! -e $out/bench.json ]]; then
    python "$here/bench.py" --device auto > "$out/bench.json.part"
    mv "$out/bench.json.part" "$out/bench.json"
fi
dasvit search "${recipe[@]}" --run "$out/search" --max-minutes "$minutes"
[[ -e $out/search/genotype.json ]] || exit 0
for cell in "$out/search" dasvit_cifar10; do
    dasvit train --cell "$cell" "${recipe[@]}" --run "$out/train-$(basename "$cell")" --max-minutes "$minutes"
done
dasvit train --model vit "${recipe[@]}" --run "$out/train-vit" --max-minutes "$minutes"
# Equal epochs and equal time can be read off the metrics of all three.
dasvit report "$out"/search "$out"/train-* --out "$out/comparison.html"
