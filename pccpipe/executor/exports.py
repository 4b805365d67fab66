"""Variables that a step exports for later steps, through the file `$PCC_ENV`: who may export which, and who gets them.

A step exports only what its own `run:` names: code that the step starts cannot export anything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pccpipe import limits
from pccpipe.errors import ResultError
from pccpipe.outcome import Code
from pccpipe.record.exported import Exported, ExportOrigin
from pccpipe.secrets.mask import Masker
from pccpipe.spec.model import Host, Pipeline

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LINE = re.compile(r"(?P<name>[^=<]*?)(?:(?P<block><<)|=)(?P<rest>.*)", re.DOTALL)
_REFUSED = re.compile(
    # How a shell and the loader start programs, and where programs look for code, settings and other machines.
    r"PATH|HOME|SHELL|TMPDIR|TMP|TEMP|IFS|ENV|CDPATH|GLOBIGNORE|PS[0-4]|SHELLOPTS|BASHOPTS|PROMPT_COMMAND|BASH_.*|PCC.*"
    r"|LD_.*|DYLD_.*|GCONV_PATH|LOCPATH|NLSPATH|GLIBC_TUNABLES|MALLOC_.*|HOSTALIASES|RES_OPTIONS|TERMINFO.*|TERMCAP"
    r"|NODE_.*|NPM_CONFIG_.*|YARN_.*|DENO_.*|BUN_.*|PYTHON.*|PIP_.*|UV_.*|VIRTUAL_ENV|CONDA_.*|PERL.*|RUBY.*|GEM_.*|BUNDLE_.*"
    r"|PHP.*|COMPOSER_.*|LUA_.*|JAVA_.*|_JAVA_OPTIONS|JDK_.*|CLASSPATH|MAVEN_.*|GRADLE_.*|SBT_.*|GO(PATH|ROOT|FLAGS|PROXY|ENV|BIN)"
    r"|CARGO_.*|RUST.*|MAKEFLAGS|MFLAGS|GNUMAKEFLAGS|MAKEFILES|CC|CXX|CPP|AS|AR|LD|EDITOR|VISUAL|PAGER|MANPAGER|BROWSER|LESS.*"
    r"|GIT_.*|SSH_.*|GPG_.*|GNUPGHOME|SUDO_.*|DOCKER_.*|CONTAINER_HOST|BUILDKIT_.*|KUBECONFIG|AWS_.*|GOOGLE_.*|AZURE_.*"
    r"|XDG_.*|CURL_.*|WGETRC|SSL_.*|REQUESTS_CA_BUNDLE|OPENSSL_.*|(.*_)?PROXY|CODEX_.*|CLAUDE_.*|ANTHROPIC_.*|OPENAI_.*|GEMINI_.*",
    re.IGNORECASE,
)


class Exports:
    """The variables that a sequence of steps has exported so far; one thread adds to it."""

    def __init__(self, earlier: Mapping[str, tuple[str, Exported]] | None = None) -> None:
        self._found = dict(earlier or {})

    def inside(self) -> Exports:
        """Return those for a group inside: the group's own do not come out of it."""
        return Exports(self._found)

    def add(self, step: str, exported: Exported) -> None:
        self._found |= dict.fromkeys(exported.variables, (step, exported))

    def at(self, origin: ExportOrigin | None) -> dict[str, str]:
        """Return the variables for a command that runs at `origin`; none if that is None."""
        found = self._found.items()
        return {name: each.variables[name] for name, (_, each) in found if origin and each.origin.reaches(origin)}

    def withheld(self, origin: ExportOrigin | None, script: str) -> Iterator[str]:
        """Yield a sentence for each variable that a script names and does not get."""
        got, words = self.at(origin), set(_WORD.findall(script))
        for name, (step, each) in self._found.items():
            if name in words and name not in got:
                why = "no agent, and no step with a key behind the proxy, gets exports"
                if origin:
                    why = f"that step ran with more isolation ({each.origin}) than this one ({origin})"
                yield f"it does not get {name}, which {step} exported: {why}"

    def unattested(self, origin: ExportOrigin | None) -> tuple[str, ...]:
        """Return the ids of the steps whose variables a command there gets, and the VM could have forged."""
        got = self.at(origin)
        return tuple({step: None for name, (step, each) in self._found.items() if name in got and each.unattested})


def wants_exports(where: Host) -> bool:
    """Say whether a step's script may export variables: it names PCC_ENV."""
    return "PCC_ENV" in _WORD.findall(where.run.source)


def read_exports(data: bytes, where: Host, pipeline: Pipeline, masker: Masker) -> dict[str, str]:
    """Return the variables of a step's file. Raises ResultError with the name that is refused, or the wrong line."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise _refused("is not UTF-8 text") from None
    if "\0" in text:
        raise _refused("has a NUL byte")
    named = set(_WORD.findall(where.run.source))
    found: dict[str, str] = {}
    for name, value in _variables(text.split("\n")):
        if not _WORD.fullmatch(name) or len(name) > limits.EXPORTED_NAME.most:
            raise _refused(f"has an invalid name: {masker.text(name)[:40]!r}")
        if name not in named:
            raise _refused(f"sets {name}, which the step's `run:` does not name")
        if _REFUSED.fullmatch(name) or name in pipeline.secrets:
            raise _refused(f"sets {name}, which changes what later steps run; fix: set it under `env:`")
        if masker.text(value) != value:
            raise _refused(f"has a secret's value in {name}", Code.SECRET_IN_OUTPUT)
        found[name] = value
    if len(found) > limits.EXPORTED.most:
        raise ResultError(limits.EXPORTED.exceeded(), Code.EXPORT_REFUSED)
    return found


def _variables(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the variables of a file in GitHub's format: `NAME=value`, or `NAME<<END` with lines up to END."""
    numbered = iter(enumerate((line.removesuffix("\r") for line in lines), start=1))
    for number, line in numbered:
        if not line:
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise _refused(f"has neither NAME=value nor NAME<<END on line {number}")
        if not match["block"]:
            yield match["name"], match["rest"]
            continue
        block: list[str] = []
        for _, inner in numbered:
            if inner == match["rest"]:
                break
            block.append(inner)
        else:
            raise _refused(f"has no end of the block that begins on line {number}")
        yield match["name"], "\n".join(block)


def _refused(words: str, code: Code = Code.EXPORT_REFUSED) -> ResultError:
    return ResultError(f"its file $PCC_ENV {words}", code)
