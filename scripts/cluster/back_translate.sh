#!/bin/bash
# Back-translation (Sennrich et al. 2016): a model of the other direction translates text of the target language, and
# its translations become sources to train with. Here by several processes of one machine; the same command goes on
# after a kill.
#   scripts/cluster/back_translate.sh 8 runs/de-en data/mono.de data/mono.back.en [--option value ...]
# Processes; the model from target to source; the text; where its translations go; then options of `translate`:
#   --engine ctranslate2        the fastest on a CPU
#   --num_beams 1               greedy: several times as fast as beams
#   --do_sample --seed 1        sampled (Edunov et al. 2018): for much text; beams are better with little
#   --top_k 10                  with it: without what label smoothing alone makes possible, such as parts of characters
# On a cluster, `sbatch scripts/cluster/slurm_array.sh` with the options of `translate` takes the place of torchrun.

set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PROCESSES MODEL TEXT TRANSLATIONS [--option value ...]" >&2
    exit 2
fi
processes=$1 model=$2 text=$3 translations=$4
shift 4

# The same for any number of processes, so that shards of all of them are joined; torchrun sets it for several only.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
begun=$(mktemp "$translations.XXXXXX")
trap 'rm -f "$begun"' EXIT
torchrun --standalone --nproc-per-node "$processes" -m hf_vanilla_transformer translate \
    --model "$model" --file "$text" --output "$translations" --shard_lines 10000 "$@"

# On a network disk, each of the processes that finish last may miss the shard of another, and leave the joining to it.
if [ ! -e "$translations" ] || [ "$translations" -ot "$begun" ]; then
    echo "$translations was not written; the same command with 1 in place of $processes does what is missing" >&2
    exit 1
fi

# The tag (Caswell et al. 2019) lets the new model know synthetic sources from those that people wrote.
echo "Train with both: vanilla-transformer pretrain ... --train_data source=PAIRS.source,target=PAIRS.target" \
    "source=$translations,target=$text,tag=bt"
