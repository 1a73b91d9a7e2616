#!/bin/sh
# S3D features of HowTo100M's videos on one machine: `RAW=/path/to/videos sh scripts/video_feature_extractor/how2/s3d.sh`
# from the project's root. Further arguments go to extract.py. Run it again after a break and it goes on.
set -eu
exec "${PYTHON:-python}" scripts/video_feature_extractor/extract.py \
    --vdir "${RAW:?set RAW to the folder, list or CSV of your videos}" \
    --fdir "${FEATURES:-data/feat/feat_how2_s3d}" \
    --type=s3d --num_decoding_thread=4 --batch_size 32 --half_precision 1 "$@"
