# syntax=docker/dockerfile:1
# Images of pneumoserve: --target front | models | models-gpu | training. Each runs as 65532 on a read-only root file system
# that gives it a writable /tmp.
#
#   BASE           any image with Python 3.11 and its venv module; give it by digest for builds that repeat
#   PIP_INDEX_URL  a package index of yours; every package is checked against the hashes in requirements/
#
# Layers go from what never changes (torch) over dependencies to our code, so that a change of code moves 1 MB.
ARG BASE=python:3.11-slim-bookworm

# --- where things are built: pip and the build backend, outside of the environment that the images get

FROM ${BASE} AS tools
ARG PIP_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_QUIET=1
COPY requirements/build.txt /requirements/
RUN python3 -m venv /opt/tools && /opt/tools/bin/pip install --require-hashes -r /requirements/build.txt \
    && python3 -m venv --without-pip /opt/venv

FROM tools AS code
COPY pyproject.toml README.md LICENSE /src/
COPY pneumoserve /src/pneumoserve
COPY training /src/training
COPY handlers /src/handlers
COPY model-store/config.properties /src/model-store/
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels /src \
    && /opt/tools/bin/pip --python /opt/venv/bin/python install --no-deps --no-index --target /opt/code /wheels/*.whl

FROM tools AS front-dependencies
ARG PIP_INDEX_URL=
COPY requirements/front.txt /requirements/
RUN /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /requirements/front.txt

FROM tools AS models-dependencies
ARG PIP_INDEX_URL=
COPY requirements/models.txt /requirements/
RUN /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /requirements/models.txt

# --- without torch: nothing but the environment and our code

FROM ${BASE} AS small
# HOME: some libraries want to write there.
ENV PATH=/opt/code/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/code PYTHONUNBUFFERED=1 HOME=/tmp
USER 65532:65532

FROM small AS front
COPY --from=front-dependencies /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code
ENTRYPOINT ["python", "-m", "pneumoserve.front"]

FROM small AS models
COPY --from=models-dependencies /opt/venv /opt/venv
COPY --from=code /opt/code /opt/code
ENTRYPOINT ["python", "-m", "pneumoserve.models"]

# --- with torch, in a layer of its own; pip stays in these images, since a copied environment would hold torch twice

FROM tools AS torch
ARG PIP_INDEX_URL=
COPY requirements/torch.txt /requirements/
RUN /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /requirements/torch.txt
ENV PATH=/opt/code/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/code PYTHONUNBUFFERED=1 HOME=/tmp

FROM torch AS models-gpu
ARG PIP_INDEX_URL=
COPY requirements/gpu.txt /requirements/
RUN /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /requirements/gpu.txt
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["python", "-m", "pneumoserve.models", "--gpu"]

FROM torch AS training
ARG PIP_INDEX_URL=
COPY requirements/train.txt /requirements/
RUN /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes -r /requirements/train.txt
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["pneumoserve"]
