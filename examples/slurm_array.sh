#!/usr/bin/env bash
# sbatch slurm_array.sh study=mine optimizer=adam,sgd: each job of the array takes part in the one study.
#SBATCH --array=1-4
#SBATCH --cpus-per-task=2
#SBATCH --time=1:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@60
# A minute before the end the pool is asked to stop: its trials go back into the queue.
exec sweeper -m "$@"
