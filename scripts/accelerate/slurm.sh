#!/bin/bash
# Four machines of eight GPUs under SLURM: survives a worker that dies, and the time limit.
#   sbatch scripts/accelerate/slurm.sh hf_vanilla_transformer/recipes/wmt14-en-de-big.yaml --max_tokens 781
# Started in the project's folder, which all machines see, with the environment that has the package active. What
# follows the recipe overrides it. 32 GPUs of 781 tokens make the paper's batch of 25,000 (§5.1).
#
# A dead worker: torchrun starts all of them again, three times at most, and they go on from the last good checkpoint.
# The time limit: five minutes before it, the run is asked to stop. It finishes its update, saves, and exits; the job
# puts itself back into the queue, and goes on there. Has not been run on a cluster so far.

#SBATCH --job-name=vanilla-transformer
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

set -uo pipefail
if [ $# -eq 0 ]; then
    echo "usage: sbatch $0 RECIPE.yaml [--option value ...]" >&2
    exit 2
fi

# torchrun gives its workers this many seconds between SIGTERM and SIGKILL; 30 are too few for a large checkpoint.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=240
# Without it, the processes of a second attempt may read the addresses of the first from the launcher.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS=4
head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

# Signals the job's steps, not this shell. srun itself, if it got SIGTERM, would kill instead of passing it on.
stopping=
trap 'stopping=1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1

# 29500 is a port of the first machine that the others can reach.
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node 8 --max-restarts 3 \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$head_node:29500" \
    scripts/pretrain.py "$@" --resume_from_checkpoint auto &
step=$!

# A trapped signal ends `wait`, but not the step.
status=0
wait "$step" || status=$?
while kill -0 "$step" 2>/dev/null; do
    wait "$step"
    status=$?
done

if [ -n "$stopping" ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$status"
