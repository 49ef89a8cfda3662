#!/bin/bash
# Translate a file by the tasks of a SLURM array, which need no connection: each translates its shards.
#   sbatch scripts/cluster/slurm_array.sh --model runs/en-de --file mono.en --output mono.de
#   sbatch --array=0-63 --gpus-per-task=1 scripts/cluster/slurm_array.sh --model runs/en-de ...
# Started in the project's folder, which all machines see, with the environment that has the package active. What
# follows the script are options of `translate`. The task that is the last to finish joins the shards.
#
# A task that fails, or is stopped by the time limit, loses the shard that it was at: send the same array again, or any
# other range; even a single task (--array=0) does all that is missing. Has not been run on a cluster so far.

#SBATCH --job-name=translate
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.log

set -euo pipefail
if [ $# -eq 0 ]; then
    echo "usage: sbatch [--array=0-15] $0 --model FOLDER --file FILE --output FILE [--option value ...]" >&2
    exit 2
fi

# Ids of an array may begin anywhere, and have a step.
export RANK=$(((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) / ${SLURM_ARRAY_TASK_STEP:-1}))
export WORLD_SIZE="$SLURM_ARRAY_TASK_COUNT"
LAST=$(((SLURM_ARRAY_TASK_MAX - SLURM_ARRAY_TASK_MIN) / ${SLURM_ARRAY_TASK_STEP:-1}))
if [ $((LAST + 1)) -ne "$WORLD_SIZE" ]; then
    echo "--array has to be a range, such as 0-15, and no list: tasks of a list would leave shards to nobody" >&2
    exit 2
fi
# SLURM shows each task its own GPUs only.
unset LOCAL_RANK
# Of another number of threads, translations may differ in the last digit, and shards are not joined.
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"

# So that a single task translates in shards too. An option of the same name that follows replaces it.
exec python scripts/translate.py --shard_lines 10000 "$@"
