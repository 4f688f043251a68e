"""Hub models without a Hub."""

import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from edgekit.errors import MachineError
from edgekit.model import ModelRef
from edgekit.source.hub import _reachable, fetch


def test_a_hub_model_without_a_network_is_a_machine_error_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    start = time.monotonic()
    with pytest.raises(MachineError, match="the Hugging Face Hub cannot be reached") as caught:
        fetch(ModelRef("organisation/no-such-model"))
    assert caught.value.exit_code == 3
    assert time.monotonic() - start < 20


def test_a_proxy_is_what_has_to_be_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.delenv("HTTPS_PROXY", raising=False)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert _reachable("https://127.0.0.1:9")
    assert not _reachable("https://127.0.0.1:9")
