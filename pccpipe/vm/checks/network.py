"""What the machine reaches by itself: names."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pccpipe.vm.check import Check, Finding, Mend, ok, skipped, wrong
from pccpipe.vm.patient import Patient

PACKAGES = "registry.npmjs.org"
"""What a project's own tests ask for as a rule, and the image's build does."""


def dns(patient: Patient) -> Finding:
    """Whether names are found: the model's, and a registry's."""
    host = urlsplit(patient.chart.endpoint).hostname or ""
    names = [name for name in (host, PACKAGES) if re.fullmatch(r"[A-Za-z0-9.-]*[A-Za-z][A-Za-z0-9.-]*", name)]
    asked = "; ".join(f"timeout 8 getent hosts {name} >/dev/null || echo {name}" for name in names)
    done = patient.run(f"command -v getent >/dev/null || exit 9\n{asked}", 20)
    if done.code == 9:
        return skipped("there is no getent to ask with")
    lost = done.stdout.decode(errors="replace").split()
    if not lost:
        return ok(f"{' and '.join(names)} found")
    servers = patient.words_of("grep -E '^nameserver' /etc/resolv.conf | head -n 3").replace("\n", ", ")
    words = f"{' and '.join(lost)} not found; /etc/resolv.conf has {servers or 'no nameserver'}"
    service = "systemd-resolved" if patient.has_systemd else "networking"
    return wrong(words, Mend(patient.service("restart", service)))


CHECKS = [Check("dns", dns, limit=30)]
