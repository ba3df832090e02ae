"""An S3 server for a laptop and for the tests: OpenStack Swift with its S3 interface, on loopback, by pip alone.

    python infra/object_store.py --folder ~/object-store

Starts within seconds, prints the variables to export, and serves until Ctrl-C; what was stored is there again next
time. Needs Linux, the project's development environment (``make setup``) and a folder on a file system with extended
attributes (ext4, xfs, btrfs; tmpfs from Linux 6.6 on). One copy of everything, one process, one disk: for work and for
tests, not for keeping things.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

HOST = "127.0.0.1"
KINDS = ("account", "container", "object", "proxy")
ACCESS_KEY = "gwm:gwm"
"""Swift names a user account:user, and its S3 interface takes that name as the access key's id."""

# Generous times: on a busy machine answers are late, and a server that was late is shunned for a minute.
_PATIENCE = "conn_timeout = 20\nnode_timeout = 60\ncontainer_update_timeout = 60\n"

_STORAGE = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""

_PROXY = """
[DEFAULT]
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck listing_formats bulk s3api tempauth copy slo proxy-server
[filter:tempauth]
use = egg:swift#tempauth
user_gwm_gwm = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
error_suppression_limit = 1000000
"""
_FILTERS = ("catch_errors", "gatekeeper", "healthcheck", "listing_formats", "bulk", "copy", "slo")

_SWIFT = """
[swift-hash]
swift_hash_path_suffix = gwm
[storage-policy:0]
name = one-copy
default = yes
"""


def serve(folder: Path, port: int) -> None:
    """Serve for ever. Exits with the reason when the port is taken or the folder can not hold objects."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _require_attributes(folder)
    secret = _secret(folder)
    warnings.simplefilter("ignore")  # Swift's libraries warn of themselves, which is nothing for who starts this
    os.environ["EVENTLET_NO_GREENDNS"] = "yes"  # nothing is looked up, and it is most of the time of a start
    import eventlet
    from eventlet import hubs
    from eventlet.support import greenlets
    from swift.common.utils import disable_fallocate, get_hub, monkey_patch, set_swift_dir

    hubs.use_hub(get_hub())
    monkey_patch()
    disable_fallocate()
    sockets = {kind: _listen(port if kind == "proxy" else 0) for kind in KINDS}
    (folder / "swift.conf").write_text(_SWIFT)
    set_swift_dir(str(folder))
    for kind in KINDS:
        _configure(folder, kind, sockets[kind].getsockname()[1], secret)
    servers = [eventlet.spawn(_run, folder / f"{kind}.conf", kind, sockets[kind]) for kind in KINDS]
    address = f"http://{HOST}:{sockets['proxy'].getsockname()[1]}"
    sys.stdout.write(f"export AWS_ENDPOINT_URL={address} AWS_REGION=us-east-1\n")
    sys.stdout.write(f"export AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={secret}\n")
    sys.stdout.flush()
    with contextlib.suppress(greenlets.GreenletExit):
        for server in servers:
            server.wait()


def _require_attributes(folder: Path) -> None:
    try:
        os.setxattr(folder, "user.swift.metadata", b"x" * 512)
        os.removexattr(folder, "user.swift.metadata")
    except OSError as error:
        sys.exit(f"{folder}: {error}; give a --folder on a file system with extended attributes, such as ext4")


def _secret(folder: Path) -> str:
    """Return the folder's secret key, made on first use and readable by its owner only."""
    file = folder / "secret"
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(os.environ.get("AWS_SECRET_ACCESS_KEY") or secrets.token_urlsafe(24))
    return file.read_text()


def _listen(port: int) -> Any:
    import eventlet

    try:
        return eventlet.listen((HOST, port), backlog=4096, reuse_port=False)
    except OSError as error:
        sys.exit(f"port {port} of {HOST}: {error.strerror}; give another --port, or 0 for a free one")


def _configure(folder: Path, kind: str, port: int, secret: str) -> None:
    """Write what a server reads, for the ports of this start; what is stored does not depend on them."""
    file = folder / f"{kind}.conf"
    file.touch(mode=0o600)
    if kind == "proxy":
        filters = "".join(f"[filter:{name}]\nuse = egg:swift#{name}\n" for name in _FILTERS)
        file.write_text(_PROXY.format(folder=folder, secret=secret) + _PATIENCE + filters)
        return
    file.write_text(_STORAGE.format(folder=folder, kind=kind) + _PATIENCE)
    (folder / "devices" / "disk").mkdir(parents=True, exist_ok=True)
    from swift.common.ring import RingBuilder

    device = {"id": 0, "region": 1, "zone": 1, "device": "disk", "weight": 1, "meta": "", "ip": HOST, "port": port}
    builder = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
    builder.add_dev(device | {"replication_ip": HOST, "replication_port": port})
    builder.rebalance()
    builder.get_ring().save(str(folder / f"{kind}.ring.gz"))


class _Cache:
    """What memcached is to a cluster of Swift: who exists is not looked up again for every request."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def get(self, key: str, **_: Any) -> Any:
        return json.loads(self._values.get(key, "null"))

    def set(self, key: str, value: Any, **_: Any) -> None:
        self._values[key] = json.dumps(value)

    def incr(self, key: str, delta: int = 1, **_: Any) -> int:
        self.set(key, (self.get(key) or 0) + delta)
        return int(self.get(key))

    def delete(self, key: str, **_: Any) -> None:
        self._values.pop(key, None)


class _OneAtATime:
    """Lets one conditional PUT of a name through at a time.

    Swift looks at If-None-Match when a PUT begins, so of several at once each may find nothing there; on S3 one of them
    is first. In one process a lock makes it so. A Swift cluster has no such lock: do not commit to one concurrently.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self._app = app
        self._locks: WeakValueDictionary[str, Any] = WeakValueDictionary()

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        if environment["REQUEST_METHOD"] not in ("PUT", "POST") or "HTTP_IF_NONE_MATCH" not in environment:
            return self._app(environment, start)
        from eventlet.semaphore import Semaphore

        name = environment["PATH_INFO"]
        lock = self._locks.get(name) or self._locks.setdefault(name, Semaphore())
        with lock:
            return list(self._app(environment, start))  # the answer's end is the end of the work


def _run(conf_file: Path, kind: str, listener: Any) -> None:
    """Run one of the four servers in this process: what Swift's own run_server does, which wants a process for each."""
    from eventlet import wsgi
    from swift.common.http_protocol import SwiftHttpProtocol
    from swift.common.utils import NullLogger
    from swift.common.wsgi import loadapp

    app, cache = _OneAtATime(loadapp(str(conf_file), global_conf={"log_name": f"{kind}-server"})), _Cache()
    wsgi.server(
        listener,
        lambda environment, start: app({**environment, "swift.cache": cache}, start),
        NullLogger(),
        protocol=SwiftHttpProtocol,
        capitalize_response_headers=False,  # S3 clients look for "ETag", not "Etag"
    )


def _end_with_stdin() -> None:
    """Have the kernel say when stdin closes, which it does when the process that holds its other end is gone."""
    import fcntl

    signal.signal(signal.SIGIO, lambda *_: os._exit(0) if not os.read(0, 1) else None)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, fcntl.fcntl(0, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where objects and the secret key lie")
    parser.add_argument("--port", type=int, default=9000, help="of the S3 interface on loopback; 0 takes a free one")
    parser.add_argument("--end-with-stdin", action="store_true", help="end with the process that stdin comes from")
    parser.add_argument("--no-sync", action="store_true", help="do not care for power cuts: faster, for tests")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # an object is whole or absent: nothing to finish
    if options.end_with_stdin:
        _end_with_stdin()
    if options.no_sync:
        os.fsync = os.fdatasync = lambda descriptor: None
    with contextlib.suppress(KeyboardInterrupt):
        serve(options.folder.expanduser().resolve(), options.port)


if __name__ == "__main__":
    main()
