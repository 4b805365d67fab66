"""Make a slow, lossy link into a network namespace: python slowlink.py NETNS HOST_IF VM_IF MS LOSS_PERCENT.

It makes two tun devices, one here and one in the namespace, and holds every packet for MS milliseconds. This is for
kernels without the netem queue, which would do the same with one tc command.
"""

from __future__ import annotations

import collections
import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x0001 | 0x1000
CLONE_NEWNET = 0x40000000
Queue = collections.deque[tuple[float, bytes]]


def tun(name: str) -> int:
    """Make a tun device in the current network namespace, and return its file descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN_NO_PI))
    return device


def enter_namespace(name: str) -> None:
    """Move this process into the network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(os.open(f"/run/netns/{name}", os.O_RDONLY), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def relay(host_device: int, vm_device: int, delay: float, loss: float) -> None:
    """Carry packets between the two devices for ever."""
    waiting: dict[int, Queue] = {host_device: collections.deque(), vm_device: collections.deque()}  # by destination
    while True:
        due = [queue[0][0] for queue in waiting.values() if queue]
        timeout = max(0.0, min(due) - time.monotonic()) if due else None
        for device in select.select([host_device, vm_device], [], [], timeout)[0]:
            receive(device, waiting[vm_device if device == host_device else host_device], delay, loss)
        for device, queue in waiting.items():
            send(device, queue)


def receive(device: int, queue: Queue, delay: float, loss: float) -> None:
    """Queue the packets that came in, except the lost ones."""
    for _ in range(256):
        try:
            packet = os.read(device, 65536)
        except OSError:
            return
        if random.random() >= loss:
            queue.append((time.monotonic() + delay, packet))


def send(device: int, queue: Queue) -> None:
    """Send the packets that have waited long enough. If the device is full, the packet is lost, as on a full link."""
    while queue and queue[0][0] <= time.monotonic():
        try:
            os.write(device, queue.popleft()[1])
        except OSError:
            return


if __name__ == "__main__":
    namespace, host_if, vm_if, ms, percent = sys.argv[1:6]
    to_host = tun(host_if)
    enter_namespace(namespace)
    relay(to_host, tun(vm_if), float(ms) / 1000, float(percent) / 100)
