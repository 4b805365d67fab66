"""Tells addresses of the internet from those of a machine, a network, or a cloud's own services.

The list is ours, because Python's `is_global` differs from one patch release to the next. Its source are IANA's
special-purpose registries; it is stricter than they are: what only forwards to another address counts as not public.
"""

from __future__ import annotations

import ipaddress

_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24"),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # looks public; in Azure, every machine has the host's services there
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
"""All that was ever given out."""
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")  # protocols' own, examples, 6to4
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Whether an address, as a resolver gives it, is one of the internet."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is None:
            return address in _PUBLIC_6 and not any(address in network for network in _NOT_PUBLIC_6)
        address = inner
    return not any(address in network for network in _NOT_PUBLIC_4)
