"""What every test may rely on: no network, one thread, warnings are errors, torchvision imports.

Not covered by `make test`, and why:

- Released weights and the numbers of the papers (marker `weights`): gigabytes from the network.
- Real kernels, bf16 speed, more than one accelerator (marker `gpu`): CI has none; processes are tested with gloo.
- Pictures a real diffusion model draws: judged by scores over thousands of samples, not by an assertion.
- `torchvision.ops` and `torchvision.io`: nothing here uses them, and beside a CPU-only torch they do not work.
"""

import os

# Libraries read these once, when they are imported. A value from outside wins, so that weights can be downloaded.
for name, value in {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",  # forked workers warn about it otherwise
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",  # for processes that tests start
}.items():
    os.environ.setdefault(name, value)

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch

torch.set_num_threads(1)  # toy networks: a second thread costs more than it brings, the more so on a busy machine


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse connections to other machines, so that a download fails here and not only where there is no network."""
    if request.node.get_closest_marker("weights") is None:
        connect = socket.socket.connect

        def connect_locally(self: socket.socket, address: Any) -> None:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
                raise OSError(f"tests run without network; this one tried to reach {address[0]}")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", connect_locally)
    yield


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
