"""The process that hands out processes: each decodes one clip and ends, so that no clip meets what another left.

``python -m tasks.decode_server FD`` imports all decoders once and forks a child per clip, one ahead of the need, so
that a clip waits for neither. It never reads footage itself, has none of the caller's credentials in its environment,
and ends with the caller, of whom it holds one end of a socket.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from dataclasses import dataclass

from tasks.decode_channel import Channel, ChannelError
from tasks.decode_child import serve, warm_up
from tasks.decode_sandbox import die_with_parent, harden_server, leave_network


@dataclass(frozen=True)
class _Spare:
    pid: int
    end: socket.socket


def main() -> None:
    """Serve until the caller hangs up."""
    caller = Channel(socket.socket(fileno=int(sys.argv[1])))
    harden_server()
    has_no_network = leave_network()
    warm_up()
    gc.collect()
    gc.freeze()  # children that collect do not copy what all share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the caller, who then hangs up
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 2)  # what decoders print about footage; errors of the start were shown
    caller.send({"ready": os.getpid(), "no_network": has_no_network})
    with _Children() as children:
        while True:
            if children.is_one_missing and not caller.has_message():
                children.make_spare(caller)
            try:
                _answer(caller, children)
            except ChannelError:  # the caller ended
                return


def _answer(caller: Channel, children: _Children) -> None:
    request, _ = caller.receive()
    if request["do"] == "start":
        spare = children.take(caller)
        with spare.end:
            caller.send({"pid": spare.pid}, fd=spare.end.fileno())
    elif request["do"] == "end":
        children.end(request["pid"])
    else:
        caller.send({"status": children.end_and_wait(request["pid"])})


class _Children:
    """Forked processes: one that waits for a clip, those at work, and those that were told to end."""

    def __init__(self) -> None:
        self._spare: _Spare | None = None
        self._at_work: set[int] = set()
        self._ending: set[int] = set()

    def __enter__(self) -> _Children:
        return self

    def __exit__(self, *exception: object) -> None:
        for pid in self._at_work | ({self._spare.pid} if self._spare else set()):
            os.kill(pid, signal.SIGKILL)

    @property
    def is_one_missing(self) -> bool:
        return self._spare is None

    def take(self, caller: Channel) -> _Spare:
        spare = self._spare or self.make_spare(caller)
        self._spare = None
        self._at_work.add(spare.pid)
        return spare

    def make_spare(self, caller: Channel) -> _Spare:
        self._ending -= {pid for pid in self._ending if os.waitpid(pid, os.WNOHANG)[0]}
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            die_with_parent()
            ours.close()
            caller.close()
            serve(theirs)
        theirs.close()
        self._spare = _Spare(pid, ours)
        return self._spare

    def end(self, pid: int) -> None:
        """Kill a child; of one that has ended by itself this changes nothing."""
        self._at_work.remove(pid)
        os.kill(pid, signal.SIGKILL)
        self._ending.add(pid)

    def end_and_wait(self, pid: int) -> int:
        """Kill a child and tell how it ended: its exit status, or minus the signal, also when it was before."""
        self.end(pid)
        self._ending.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
