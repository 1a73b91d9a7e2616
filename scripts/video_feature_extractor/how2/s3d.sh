#!/bin/sh
# Extracts S3D features of HowTo100M's videos on one machine. Run it from the project's root:
#     RAW=/path/to/videos sh scripts/video_feature_extractor/how2/s3d.sh
# Further arguments are passed to extract.py. Run it again after an interruption to continue.
set -eu
exec "${PYTHON:-python}" scripts/video_feature_extractor/extract.py \
    --vdir "${RAW:?set RAW to the folder, list or CSV of your videos}" \
    --fdir "${FEATURES:-data/feat/feat_how2_s3d}" \
    --type=s3d --num_decoding_thread=4 --batch_size 32 --half_precision 1 "$@"
