"""Where S3 is: the environment that every AWS client reads, ``AWS_ENDPOINT_URL`` and ``AWS_REGION``.

Endpoint and region are handed on to Ray's workers (``job_environment``). Credentials are never read or handed on: they
must lie in the environment of each machine. Imports nothing heavy, so that a command can prepare its environment first.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tasks.errors import StorageError

_NOT_ASKED_FOR = "us-east-1"  # what servers other than Amazon's take a region to be when nobody says
_SHARED = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")


@dataclass(frozen=True, kw_only=True)
class S3Setting:
    """Where S3 is. ``endpoint`` None is Amazon's; ``region`` None leaves it to the libraries."""

    endpoint: str | None
    region: str | None

    @property
    def place(self) -> str:
        """The server, for messages."""
        return self.endpoint or "Amazon S3"


def s3_setting(environment: Mapping[str, str] | None = None) -> S3Setting:
    """Read the setting from ``environment``, that of the process unless given.

    Raises StorageError when the endpoint is no http(s) address, or holds a password.
    """
    found = os.environ if environment is None else environment
    endpoint = found.get("AWS_ENDPOINT_URL_S3") or found.get("AWS_ENDPOINT_URL") or None
    region = found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION") or None
    if endpoint is None:
        return S3Setting(endpoint=None, region=region)
    parts = urlsplit(endpoint)
    if "@" in parts.netloc:
        raise StorageError(
            "AWS_ENDPOINT_URL holds a user name or password: expected http(s)://host:port; put credentials into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise StorageError(f"AWS_ENDPOINT_URL={endpoint!r}: expected an address such as http://127.0.0.1:9000")
    return S3Setting(endpoint=endpoint, region=region or _NOT_ASKED_FOR)


def job_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that all processes of a job need alike, on every machine; never credentials.

    Servers such as Ceph refuse the checksums that AWS clients have sent since 2025, with 411 or 501. Amazon's own
    takes them, so they are switched off only where an endpoint is set.
    """
    found = os.environ if environment is None else environment
    setting = s3_setting(found)
    variables = {name: found[name] for name in _SHARED if found.get(name)}
    if setting.endpoint is not None:
        variables |= {
            "AWS_REGION": setting.region or _NOT_ASKED_FOR,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
    return variables


def prepare_process() -> None:
    """Set what is unset of ``job_environment`` in this process, before a client is made or Ray is started."""
    for name, value in job_environment().items():
        os.environ.setdefault(name, value)
