"""The server's addresses. Each begins with a project's name, and takes that project's token."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field

import pccpipe
from examples.server.runs import ProjectRuns
from examples.server.settings import Settings

router = APIRouter(prefix="/projects/{project}/runs")


class NewRun(BaseModel):
    """What a project sends to start a run: the text of a pipeline, and its inputs."""

    pipeline: Annotated[str, Field(max_length=1_000_000)]
    inputs: dict[str, str] = {}


def project_of(request: Request, project: str, authorization: Annotated[str, Header()] = "") -> ProjectRuns:
    """Return the project of an address, if the caller has its token."""
    projects: dict[str, ProjectRuns] = request.app.state.projects
    runs = projects.get(project)
    if runs is None or not hmac.compare_digest(authorization.encode(), f"Bearer {runs.token}".encode()):
        raise HTTPException(401, "unknown project, or not its token")
    return runs


Runs = Annotated[ProjectRuns, Depends(project_of)]


def known_run(runs: Runs, run_id: str) -> pccpipe.RunState:
    """Return the state of the run of an address."""
    try:
        return pccpipe.get_run(run_id, runs_dir=runs.runs_dir)
    except pccpipe.UsageError as error:
        raise HTTPException(404, str(error)) from error


State = Annotated[pccpipe.RunState, Depends(known_run)]


@router.post("", status_code=201)
async def start(runs: Runs, new: NewRun) -> dict[str, str]:
    """Start a run."""
    return {"run_id": await runs.start(new.pipeline, new.inputs)}


@router.get("")
def list_runs(runs: Runs) -> list[dict[str, object]]:
    """List the project's runs, the newest first."""
    entries = pccpipe.list_runs(runs_dir=runs.runs_dir)
    return [{"run_id": entry.run_id, "status": entry.status, "began_at": entry.began_at} for entry in entries]


@router.get("/{run_id}")
def get_run(state: State) -> Response:
    """Return a run's state, as its run.json has it."""
    return JSONResponse(state.to_json())


@router.get("/{run_id}/events")
def events(runs: Runs, state: State, last_event_id: Annotated[int, Header()] = 0) -> Response:
    """Send the run's events after the last one that the client has, and each new one (server-sent events).

    The stream ends with the run, or while it waits for a person. A browser then asks again; 204 tells it to stop.
    """
    if state.ended_at is not None and last_event_id >= state.last_seq:
        return Response(status_code=204)
    stream = _events(runs, state.run_id, last_event_id)
    return StreamingResponse(stream, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _events(runs: ProjectRuns, run_id: str, after: int) -> AsyncGenerator[str, None]:
    async for event in pccpipe.aio.follow(run_id, after=after, runs_dir=runs.runs_dir):
        yield f"id: {event.seq}\ndata: {json.dumps(event.to_json())}\n\n"


@router.get("/{run_id}/log")
def log(
    runs: Runs, state: State, step: str, stream: pccpipe.Stream = pccpipe.Stream.STDOUT, offset: int = 0
) -> Response:
    """Return a piece of a step's log; the headers say where the next one begins, and if there is none."""
    piece = pccpipe.read_log(state.run_id, step, stream=stream, offset=max(0, offset), runs_dir=runs.runs_dir)
    headers = {
        "X-Next-Offset": str(piece.next_offset),
        "X-Complete": str(piece.is_complete).lower(),
        "X-Content-Type-Options": "nosniff",
    }
    return Response(piece.data, media_type="text/plain; charset=utf-8", headers=headers)


@router.post("/{run_id}/cancel", status_code=202)
async def cancel(runs: Runs, state: State) -> None:
    """Cancel a run. Its `always:` steps still run; asked again, their grace is shorter."""
    await runs.cancel(state.run_id)


@router.post("/{run_id}/answers")
async def answer(runs: Runs, state: State, values: dict[str, str]) -> dict[str, object]:
    """Answer questions of the run's agents, by key. The run goes on after the last answer."""
    answered = await runs.answer(state.run_id, values)
    return {"open": [sorted(question.missing) for question in answered.open_questions]}


def create_app(settings: Settings) -> FastAPI:
    """Return the server. At its start it resumes the runs that an earlier one left."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        app.state.projects = {name: ProjectRuns(name, settings) for name in settings.projects}
        resuming = [asyncio.create_task(runs.resume_all()) for runs in app.state.projects.values()]
        yield
        for task in resuming:
            task.cancel()

    app = FastAPI(title="A control centre", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(pccpipe.SpecError, _refused)
    app.add_exception_handler(pccpipe.UsageError, _wrong)
    return app


def _refused(_: Request, error: Exception) -> Response:
    """Answer with every problem of a pipeline, and its place in the text."""
    assert isinstance(error, pccpipe.SpecError)
    problems = [
        {
            "line": problem.position.line,
            "column": problem.position.column,
            "message": problem.message,
            "hint": problem.hint,
        }
        for problem in error.problems
    ]
    return JSONResponse({"problems": problems}, status_code=422)


def _wrong(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, status_code=409)
