"""Models from the Hugging Face Hub: one snapshot, safe file types only, its commit known."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgekit.errors import MachineError, ModelError
from edgekit.model import ModelRef
from edgekit.source.quiet import quiet

_CONNECT_SECONDS = 5.0
_SAFE_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
_PICKLE_FILES = ("pytorch_model*.bin", "*/pytorch_model.bin")


@dataclass(frozen=True)
class Snapshot:
    """A downloaded model: its folder and the commit it is."""

    folder: Path
    commit: str


def fetch(ref: ModelRef) -> Snapshot:
    """Return the snapshot of a Hub id, downloaded if it is not in the local cache.

    Raises:
        ModelError: The spec is no Hub id, or the Hub has no such model or revision.
        MachineError: The Hub cannot be reached and the model is not in the cache.
    """
    if not re.fullmatch(r"\w([\w.-]*\w)?(/\w([\w.-]*\w)?)?", ref.spec):
        raise ModelError(
            f"no model at '{ref.spec}': no such directory, and it is no Hub id",
            "Give a model directory, a Hub id such as 'organisation/name', or package.module:factory.",
        )
    from huggingface_hub import constants, errors, snapshot_download

    offline = constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT)
    patterns = [*_SAFE_FILES, *(_PICKLE_FILES if ref.allow_pickle else ())]
    try:
        with quiet():
            folder = snapshot_download(
                ref.spec,
                revision=ref.revision,
                allow_patterns=patterns,
                local_files_only=offline,
                max_workers=4,
            )
    except errors.RevisionNotFoundError:
        raise ModelError(f"the Hub model '{ref.spec}' has no revision '{ref.revision}'") from None
    except errors.RepositoryNotFoundError:
        raise ModelError(
            f"no model '{ref.spec}': no such directory, and the Hub has no such model (or it is private)",
            "Check the spelling; for a gated or private model log in with: hf auth login",
        ) from None
    except errors.LocalEntryNotFoundError:
        raise MachineError(
            f"no model '{ref.spec}': no such directory, and the Hugging Face Hub cannot be reached",
            "Check the path, or download the model on a machine with a network and give its directory.",
        ) from None
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MachineError(f"the Hub model '{ref.spec}' could not be downloaded: {line}") from None
    return Snapshot(Path(folder), Path(folder).name)  # the cache names a snapshot's folder by its commit


def _reachable(endpoint: str) -> bool:
    """Whether the Hub, or the proxy in front of it, takes a connection within seconds."""
    scheme = urlsplit(endpoint).scheme
    proxy = os.environ.get(f"{scheme}_proxy") or os.environ.get(f"{scheme.upper()}_PROXY")
    url = urlsplit(proxy or endpoint)
    try:
        with socket.create_connection(
            (url.hostname or "", url.port or (80 if url.scheme == "http" else 443)), timeout=_CONNECT_SECONDS
        ):
            return True
    except OSError:
        return False
