#!/bin/sh
# Extracts S3D features of HowTo100M's videos on a Slurm cluster, in 64 parts. Each part has a GPU and 16 cores, which
# decode the videos.
#     RAW=/path/to/videos sbatch scripts/video_feature_extractor/how2/s3d_slurm.sh
# Submit it again if parts ran out of time. Finished videos are skipped.
#SBATCH --job-name=s3d
#SBATCH --array=0-63
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=16
#SBATCH --mem=32G
#SBATCH --time=24:00:00
#SBATCH --output=s3d_%A_%a.log
set -eu
exec sh scripts/video_feature_extractor/how2/s3d.sh \
    --shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" \
    --num_decoding_thread "${SLURM_CPUS_PER_TASK:-16}" --batch_size 64 "$@"
