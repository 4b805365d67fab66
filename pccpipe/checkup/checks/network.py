"""Checks what the machine can reach: names, and a registry by HTTPS. Its agents may need neither."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pccpipe.checkup.check import Check, Finding, Fix, ok, skipped, warning, wrong
from pccpipe.checkup.context import CheckContext

PACKAGES = "registry.npmjs.org"
"""A registry that most projects' tests use, and the image's build."""


def dns(context: CheckContext) -> Finding:
    """Check that the names of the model's API and of a registry resolve."""
    host = urlsplit(context.options.endpoint).hostname or ""
    names = [name for name in (host, PACKAGES) if re.fullmatch(r"[A-Za-z0-9.-]*[A-Za-z][A-Za-z0-9.-]*", name)]
    asked = "; ".join(f"timeout 8 getent hosts {name} >/dev/null || echo {name}" for name in names)
    done = context.run(f"command -v getent >/dev/null || exit 9\n{asked}", 20)
    if done.code == 9:
        return skipped("there is no getent to ask with")
    lost = done.stdout.decode(errors="replace").split()
    if not lost:
        return ok(f"{' and '.join(names)} found")
    servers = context.words_of("grep -E '^nameserver' /etc/resolv.conf | head -n 3").replace("\n", ", ")
    words = f"{' and '.join(lost)} not found; /etc/resolv.conf has {servers or 'no nameserver'}"
    service = "systemd-resolved" if context.has_systemd else "networking"
    return wrong(words, Fix(context.service("restart", service)))


def https(context: CheckContext) -> Finding:
    """Check that the machine reaches the internet, for tests that install packages and for the image's build."""
    script = f"""
        if command -v curl >/dev/null; then curl -sS -o /dev/null -m 10 https://{PACKAGES}/
        elif command -v bash >/dev/null; then timeout 10 bash -c 'exec 3<>/dev/tcp/{PACKAGES}/443'
        else exit 99; fi"""
    done = context.run(script, 20)
    if done.code == 0:
        return ok(f"{PACKAGES} answers")
    if done.code == 99:
        return skipped("there is neither curl nor bash to ask with")
    said = done.stderr.decode(errors="replace").strip().partition("\n")[0] or "no answer in 10 s"
    words = f"{PACKAGES} is not reached: {said}. Runs work if their tests install nothing"
    return warning(words, Fix(f"curl -v https://{PACKAGES}/"))


CHECKS = [Check("dns", dns, limit=30), Check("https", https, ("dns",), limit=30)]
