"""The S3 server that tests run against: ``infra/object_store.py`` as a process of its own, on a port kept for it.

Its address and its key are in the environment from the start of the session, whether or not a test needs the server:
so every process of a test has them, Ray's as well, whatever was started first, and nothing reaches a real store.

With ``GWM_TESTS_S3=given`` the tests run against the server that ``AWS_ENDPOINT_URL`` and the other variables of AWS
name, in a bucket of their own that is removed afterwards; those that kill and restart the server are skipped.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

HOST = "127.0.0.1"
SCRIPT = Path(__file__).resolve().parents[1] / "infra" / "object_store.py"
IS_GIVEN = os.environ.get("GWM_TESTS_S3") == "given"
BUCKET = f"gwm-tests-{secrets.token_hex(4)}" if IS_GIVEN else "gwm-tests"


def reserve_port() -> socket.socket:
    """Take a free port of loopback and keep all others from it; the server, which reuses addresses, can listen."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind((HOST, 0))
    return holder


_port_holder = reserve_port()
PORT: int = _port_holder.getsockname()[1]


def prepare_environment() -> None:
    """Make the test server the only S3 that this process and its children know, with a key of this session alone."""
    if IS_GIVEN:
        return
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{HOST}:{PORT}",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "gwm:gwm",
        "AWS_SECRET_ACCESS_KEY": secrets.token_urlsafe(24),
    }


def make_bucket() -> None:
    """Make the bucket on a server that runs."""
    from boto3.session import Session

    Session().client("s3").create_bucket(Bucket=BUCKET)


def remove_bucket() -> None:
    """Remove the bucket and all that the tests left in it."""
    from boto3.session import Session

    bucket = Session().resource("s3").Bucket(BUCKET)
    bucket.objects.all().delete()
    bucket.delete()


class S3Server:
    """One server; what it stores outlives its process, so it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pid = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when the server answers."""
        command = [sys.executable, "-W", "ignore", str(SCRIPT), f"--folder={self.folder}", f"--port={PORT}"]
        with Path(f"{self.folder}.log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--end-with-stdin", "--no-sync"],
                stdin=subprocess.PIPE,  # closes when this process is gone, in whatever way
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        if not self._process.stdout.readline():  # printed when it listens
            raise RuntimeError(f"the S3 server did not start; see {log.name}")

    def kill(self) -> None:
        """End the process like a power failure would, in the middle of whatever it does."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process = None
