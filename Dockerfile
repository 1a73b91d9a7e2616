# MMPT with all that training, data preparation and reports need. docs/install.md shows how to run it.
#
#     docker build --tag mmpt .                                  PyTorch's CPU build
#     docker build --tag mmpt:cuda --build-arg TORCH_INDEX= .    PyTorch's CUDA build
#
# PyTorch's packages bring the CUDA libraries, so both have the same base image. For the CUDA build, the
# machine needs NVIDIA's driver and container toolkit.
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# A package index for torch, in addition to PyPI, as in the Makefile; empty for PyPI alone.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/mmpt
ENV PATH=/opt/mmpt/bin:$PATH
WORKDIR /src
# The requirements are a layer of their own, which is used again if only the code changes.
COPY requirements.txt requirements-fairseq.txt ./
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        -r requirements.txt \
    && READTHEDOCS=1 pip install --no-cache-dir --no-deps --no-build-isolation \
        -r requirements-fairseq.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY mmpt mmpt
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/mmpt /opt/mmpt
ENV PATH=/opt/mmpt/bin:$PATH HOME=/home/mmpt
# Any user of `docker run --user` can write caches to HOME and results to /work.
RUN useradd --create-home --uid 1000 mmpt \
    && chmod 1777 /home/mmpt \
    && install --directory --mode 1777 /work
WORKDIR /work
COPY projects projects
USER 1000
ENTRYPOINT ["mmpt"]
CMD ["--help"]
