# GILL with its demo, for CPUs or for NVIDIA GPUs:
#
#     docker build -t gill .                                          # torch's default wheel: CUDA libraries with it
#     docker build -t gill:cpu --build-arg TORCH_INDEX=ADDRESS .      # the index of CPU wheels, see docs/INSTALL.md
#     docker run --rm -it --gpus all -v "$PWD/runs:/gill/runs" gill train --preset flatland --workers 1
#     docker run --rm -it --network host gill:cpu demo                # the page serves this machine alone
FROM python:3.11-slim

ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 HF_HUB_DISABLE_TELEMETRY=1 GRADIO_ANALYTICS_ENABLED=False
WORKDIR /gill

# Dependencies change less often than code: a layer of their own.
COPY requirements.txt requirements-dev.txt ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep -o '^torch==[^ ]*' requirements.txt)" \
    && pip install -r requirements-dev.txt

# Editable: the commands run the programs of this folder, and checkpoints/ lies where settings look for it.
COPY . .
RUN pip install --no-deps --editable .

ENTRYPOINT ["gill"]
