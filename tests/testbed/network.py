"""Link a VM to this machine: a network namespace and a pair of virtual interfaces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.place import BedError, call, locked, tried

NET = os.environ.get("PCCPIPE_TESTBED_NET", "10.77")
NAMESPACE = "pccbed-"


@dataclass(frozen=True)
class Link:
    """A link with number N: it has the addresses NET.N.1 on this machine and NET.N.2 in the VM."""

    number: int

    @property
    def host_address(self) -> str:
        """The machine's end."""
        return f"{NET}.{self.number}.1"

    @property
    def vm_address(self) -> str:
        """The VM's end."""
        return f"{NET}.{self.number}.2"

    @property
    def namespace(self) -> str:
        """The network namespace's name."""
        return f"{NAMESPACE}{self.number}"

    @property
    def slow_names(self) -> tuple[str, str, str]:
        """The parts of the slow link: the namespace, the device on this machine, the device in the VM."""
        return self.namespace, f"bed{self.number}s", "slow0"

    @property
    def _device(self) -> str:
        return f"bed{self.number}"

    @classmethod
    def claim(cls) -> Link:
        """Make the first free link. Making the namespace claims it: only one process can succeed."""
        for number in range(1, 250):
            link = cls(number)
            if not Path("/run/netns", link.namespace).exists() and tried("ip", "netns", "add", link.namespace):
                link._make()
                return link
        raise BedError("all 249 links are taken; 'python -m tests.testbed down-all' frees them")

    def _make(self) -> None:
        _let_out()
        device, namespace = self._device, self.namespace
        call("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        call("ip", "-batch", "-", stdin=f"addr add {self.host_address}/24 dev {device}\nlink set {device} up\n")
        call("ip", "-n", namespace, "-batch", "-", stdin=(
            f"addr add {self.vm_address}/24 dev eth0\nlink set lo up\nlink set eth0 up\n"
            f"route add default via {self.host_address}\n"
        ))  # fmt: skip

    def remove(self) -> None:
        """Remove both ends, if they are there."""
        tried("ip", "link", "del", self._device)
        tried("ip", "netns", "del", self.namespace)

    def cut(self) -> None:
        """Drop every packet in both directions."""
        self.heal()
        self._drop("-I")

    def heal(self) -> None:
        """End `cut`."""
        self._drop("-D")

    def _drop(self, verb: str) -> None:
        # Before and after all other rules in the VM, so that Docker's own have no effect.
        for table, chain, flag in (("raw", "PREROUTING", "-i"), ("mangle", "POSTROUTING", "-o")):
            for device in ("eth0", "slow0"):
                rule = ("iptables", "-w", "-t", table, verb, chain, flag, device, "-j", "DROP")
                done = tried("ip", "netns", "exec", self.namespace, *rule)
                if verb == "-I" and not done:
                    raise BedError(f"iptables could not cut {self.namespace}")

    def unplug(self) -> None:
        """Take the VM's end down."""
        call("ip", "-n", self.namespace, "link", "set", "eth0", "down")

    def plug(self) -> None:
        """End `unplug`."""
        call("ip", "-n", self.namespace, "link", "set", "eth0", "up")
        call("ip", "-n", self.namespace, "route", "replace", "default", "via", self.host_address)

    def has_slow(self) -> bool:
        """Return whether both devices of the slow link are there."""
        _, host_device, vm_device = self.slow_names
        return tried("ip", "link", "show", host_device) and tried("ip", "-n", self.namespace, "link", "show", vm_device)

    def route_over_slow(self) -> None:
        """Route the traffic between machine and VM over the slow devices. These routes end with the devices."""
        _, host_device, vm_device = self.slow_names
        call("ip", "link", "set", host_device, "up")
        call("ip", "-n", self.namespace, "link", "set", vm_device, "up")
        route = ("route", "replace")
        call("ip", "-n", self.namespace, *route, f"{self.host_address}/32", "dev", vm_device, "src", self.vm_address)
        call("ip", *route, f"{self.vm_address}/32", "dev", host_device, "src", self.host_address)


# One set for all links, kept until `down-all`. No packet for the bed's addresses may ever leave by the default route.
_RULES = (
    ("-t", "nat", "POSTROUTING", "-s", f"{NET}.0.0/16", "!", "-d", f"{NET}.0.0/16", "-j", "MASQUERADE"),
    ("-t", "filter", "FORWARD", "-s", f"{NET}.0.0/16", "-j", "ACCEPT"),
    ("-t", "filter", "FORWARD", "-d", f"{NET}.0.0/16", "-j", "ACCEPT"),
)


def _let_out() -> None:
    with locked("network"):
        call("ip", "route", "replace", "blackhole", f"{NET}.0.0/16")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for rule in _RULES:
            if not tried("iptables", "-w", *rule[:2], "-C", *rule[2:]):
                call("iptables", "-w", *rule[:2], "-I", *rule[2:])


def remove_rules() -> None:
    """Undo the first link's changes to this machine, except ip_forward, which others may need by now."""
    with locked("network"):
        for rule in _RULES:
            tried("iptables", "-w", *rule[:2], "-D", *rule[2:])
        tried("ip", "route", "del", "blackhole", f"{NET}.0.0/16")
