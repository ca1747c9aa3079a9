# syntax=docker/dockerfile:1
# Images of pneumoserve: --target front | rollout | review | intake | models | models-gpu | training | loadtest. Each runs as 65532 on a read-only root file system
# that gives it a writable /tmp.
#
#   BASE           any image with Python 3.11, its venv module and libseccomp; give it by digest for builds that repeat
#   PIP_INDEX_URL  a package index of yours; every package is checked against the hashes in requirements/
#
# Layers go from what never changes (torch) over dependencies to our code, so that a change of code moves 1 MB.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS environment
# HOME: some libraries want to write there.
ENV PATH=/opt/code/bin:/opt/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONPATH=/opt/code PYTHONUNBUFFERED=1 HOME=/tmp
COPY requirements/install.sh /requirements/

FROM environment AS code
ARG PIP_INDEX_URL=
COPY requirements/build.txt /requirements/
RUN sh /requirements/install.sh /requirements/build.txt
COPY pyproject.toml README.md LICENSE /src/
COPY pneumoserve /src/pneumoserve
COPY training /src/training
COPY handlers /src/handlers
RUN python3 -m venv /tmp/pip && /tmp/pip/bin/pip --python /opt/venv/bin/python --quiet --disable-pip-version-check \
    install --no-deps --no-build-isolation --target /opt/code /src

FROM environment AS front-dependencies
ARG PIP_INDEX_URL=
COPY requirements/front.txt /requirements/
RUN sh /requirements/install.sh /requirements/front.txt
# Decode workers need libseccomp to filter their system calls. Debian's apt brings it; a base without fails here.
RUN python -c "import pyseccomp"

FROM front-dependencies AS front
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["python", "-m", "pneumoserve.front"]

# What the front has, and the models' engine.
FROM front-dependencies AS rollout-dependencies
ARG PIP_INDEX_URL=
COPY requirements/rollout.txt /requirements/
RUN sh /requirements/install.sh /requirements/rollout.txt

FROM rollout-dependencies AS rollout
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["pneumoserve", "rollout"]

# The reading room, the alert sender and the random sample.
FROM environment AS review-dependencies
ARG PIP_INDEX_URL=
COPY requirements/review.txt /requirements/
RUN sh /requirements/install.sh /requirements/review.txt
# As for the front: the console decodes images.
RUN python -c "import pyseccomp"

FROM review-dependencies AS review
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["python", "-m", "pneumoserve.console"]

# DICOM intake: what the front has, and what speaks DICOM.
FROM front-dependencies AS intake-dependencies
ARG PIP_INDEX_URL=
COPY requirements/intake.txt /requirements/
RUN sh /requirements/install.sh /requirements/intake.txt

FROM intake-dependencies AS intake
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["python", "-m", "pneumoserve.intake"]

FROM environment AS models-dependencies
ARG PIP_INDEX_URL=
COPY requirements/models.txt /requirements/
RUN sh /requirements/install.sh /requirements/models.txt

FROM models-dependencies AS models
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["python", "-m", "pneumoserve.models"]

# torch has a layer of its own, 5 GB that both images below share.
FROM environment AS torch
ARG PIP_INDEX_URL=
COPY requirements/torch.txt /requirements/
RUN sh /requirements/install.sh /requirements/torch.txt

FROM torch AS models-gpu
ARG PIP_INDEX_URL=
COPY requirements/gpu.txt /requirements/
RUN sh /requirements/install.sh /requirements/gpu.txt
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["python", "-m", "pneumoserve.models", "--gpu"]

FROM torch AS training
ARG PIP_INDEX_URL=
COPY requirements/train.txt /requirements/
RUN sh /requirements/install.sh /requirements/train.txt
COPY --from=code /opt/code /opt/code
USER 65532:65532
ENTRYPOINT ["pneumoserve"]

# Locust, and films of the sample; nothing of pneumoserve.
FROM environment AS loadtest
ARG PIP_INDEX_URL=
COPY requirements/loadtest.txt /requirements/
RUN sh /requirements/install.sh /requirements/loadtest.txt
COPY tests/data/xray-sample/originals /opt/code/loadtest/sample/originals
COPY tests/data/xray-sample/dicom /opt/code/loadtest/sample/dicom
COPY pneumoserve/__init__.py pneumoserve/errors.py /opt/code/pneumoserve/
COPY loadtest /opt/code/loadtest
USER 65532:65532
ENTRYPOINT ["python", "-m", "loadtest"]
