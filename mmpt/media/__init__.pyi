from .frame_graph import Sampling
from .s3d import S3D, load_s3d

__all__ = ["S3D", "Sampling", "load_s3d"]
