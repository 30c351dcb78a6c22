#!/usr/bin/env bash
# The results of docs/results.md on two CPU cores: the study on CIFAR-10, its control, the ablation, and what
# transfers to Tiny ImageNet.
#
#   benchmarks/small.sh CIFAR10 TINY_IMAGENET OUT MINUTES [--section.field VALUE ...]
#
# In the environment that dasvit is installed in. CIFAR10 and TINY_IMAGENET: folders with parquet files (any classes), as for
# --data.path. OUT: where everything goes. MINUTES: after so many each command stops with a checkpoint (but for the
# last one, which Ctrl-C stops). The same call goes on with what is not done. No network is needed.
set -euo pipefail
(($# >= 4)) || { sed -n '2,9p' "$0"; exit 2; }
cifar=$1 tiny=$2 out=$3 minutes=$4
shift 4
jobs=(--jobs 2 --max-minutes "$minutes")
recipe=(--config cifar10-study "$@")

mkdir -p "$out"
dasvit study "${recipe[@]}" --data.path "$cifar" "${jobs[@]}" --run "$out/study"

# The control: finals that draw evenly, since no alpha moves.
dasvit study "${recipe[@]}" --data.path "$cifar" "${jobs[@]}" --search.alphas.lr 0 --methods dasvit --random 1 --control 0 \
    --search.stages '{layers: [2], keep: [0], epochs: [2], weight_epochs: [1]}' --run "$out/even"

# The paper's parts one by one, where the weights alone decide.
dasvit study "${recipe[@]}" --data.path "$cifar" "${jobs[@]}" --search.finals.cells 0 --methods dasvit --ablate \
    --searches 4 --trainings 1 --random 1 --control 0 --run "$out/ablation"

# The cell of CIFAR-10 carried over, and a search of its own.
on_tiny=("${recipe[@]}" --data.name parquet --data.path "$tiny" --model.image_size 64 --model.patch_size 8
    --train.epochs 3)
dasvit search "${on_tiny[@]}" --max-minutes "$minutes" --run "$out/tiny-search"
[[ -e $out/tiny-search/genotype.json ]] || exit 0
dasvit compare "$out/tiny-search" dasvit_shift dasvit_cifar10 vit "${on_tiny[@]}" --seeds 3 --run "$out/tiny"
