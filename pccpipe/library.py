"""The library: what the command does, as calls. Safe to call from many threads at once."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pccpipe.engine.assemble import assemble
from pccpipe.engine.cancel import Cancel
from pccpipe.engine.executor import RunOutcome, all_steps, execute
from pccpipe.errors import UsageError
from pccpipe.outcome import Outcome
from pccpipe.record.events import Event, RunEnded, RunStarted
from pccpipe.record.files import write_atomically
from pccpipe.record.journal import Journal
from pccpipe.record.state import RunState, StateFile
from pccpipe.secrets.sources import read_secrets
from pccpipe.spec.load import load_pipeline, resolve_inputs
from pccpipe.spec.model import Pipeline, Project, Run
from pccpipe.spec.project import load_project
from pccpipe.targets.base import Json
from pccpipe.version import __version__

RUNS_DIR = Path(".system/runs")
