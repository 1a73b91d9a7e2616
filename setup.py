"""Package metadata and the version ranges that should work; requirements.txt pins the versions that are tested."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Return `__version__` of mmpt/__init__.py without importing the package."""
    match = re.search(r'^__version__ = "(.+)"$', (ROOT / "mmpt" / "__init__.py").read_text(encoding="utf-8"), re.M)
    assert match, "mmpt/__init__.py must set __version__ on a line of its own"
    return match.group(1)


setup(
    name="mmpt",
    version=read_version(),
    description="Pre-train video-text models on long, noisy, narrated videos (VideoCLIP, Norton)",
    author="The MMPT authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_packages(include=["mmpt", "mmpt.*"]),
    package_data={"mmpt": ["py.typed"], "": ["*.pyi", "*.yaml"]},
    python_requires=">=3.11",
    # fairseq itself is missing on purpose: its declared dependencies would bring torchaudio and, on Linux, a second
    # torch. requirements-fairseq.txt has the one command that installs it; only training needs it.
    install_requires=[
        # imported by mmpt
        "av>=18",  # decodes videos; FFmpeg is in its wheels
        "faiss-cpu>=1.8",
        "filelock>=3.16",
        "httpx2>=2,<3",
        "huggingface_hub>=2.4,<3",  # downloads call its `file_download.http_get`
        "json-stream>=2.5,<3",
        "lazy_loader>=0.5",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pillow>=11",
        "protobuf>=4",
        "pydantic>=2.5",
        "PyYAML>=6.0",
        "rich>=13",
        "safetensors>=0.4",
        "torch>=2.6,<2.14",  # from 2.6 on torch.load refuses code by default; newer than 2.13 is untested
        "transformers>=5.0,<6",
        # imported by fairseq, which is installed without its dependencies
        "bitarray>=2.9",
        "hydra-core==1.3.2",
        "omegaconf==2.3.0",
        "packaging>=23",
        "regex",
        "sacrebleu>=2.0",
        "scikit-learn>=1.3",
        "setuptools>=77.0.3",
        "tensorboardX>=2.6",
        "tqdm>=4.60",
    ],
    extras_require={"dev": ["mypy>=1.10", "pytest>=8", "ruff>=0.6", "types-PyYAML>=6.0"]},
)
