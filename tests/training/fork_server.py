"""Runs of one or several processes without the start-up of each: a process that has imported everything forks them.

`python fork_server.py` reads one JSON request a line, `{"recipe": FILE, "processes": 2, "die": {...}}`, forks the
processes of that run with the variables that torchrun would set, and answers with a line of JSON. It ends the others
when one has failed, as torchrun does. Not a test itself; `Runs` is what tests use.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = int(os.environ.get("LIMIT_SECONDS", "300"))
CRASHED = {-signal.SIGABRT, -signal.SIGSEGV}
"""Of several hundred runs of two processes one ends so, without a word, in gloo's communication (torch 2.13). As with
`torchrun --max-restarts 1` the run is started once more, goes on at its last checkpoint, and is said to have been."""
MOMENTS = ("step", "publish", "finish")
"""Before a step's first forward pass; between writing a checkpoint and renaming it; between a stage's last checkpoint
and the note that it is done."""


class Runs:
    """The side of the tests: starts the server with the first run and keeps it."""

    def __init__(self) -> None:
        self._server: subprocess.Popen | None = None

    def __call__(self, recipe: Any, processes: int = 1, *, fails: bool = False, **request: Any) -> str:
        """Trains a recipe; returns what its processes printed.

        Args:
            fails: the run must fail, else it must not.
            request: `die`: `{"stage": NAME, "step": N, "moment": one of MOMENTS, "ranks": [...]}`, the processes that
                end themselves by SIGKILL there; `snapshots`: a folder for all tensors around each stage; `records`: a
                folder where each process notes the records that it trains on; `options`: arguments of `run_recipe`;
                `environment`: variables.
        """
        file = recipe.run_folder().with_suffix(".yaml")
        file.write_text(json.dumps(recipe.model_dump(mode="json")), encoding="utf-8")
        log = recipe.run_folder().with_suffix(".log")
        cache = {name: os.environ[name] for name in ("LALM_CACHE",) if name in os.environ}
        request = {**request, "environment": {**cache, **request.get("environment", {})}}
        asked = {"recipe": str(file), "processes": processes, "log": str(log), **request}
        answer = self._ask(asked)
        said = log.read_text(encoding="utf-8", errors="replace")
        if processes > 1 and not fails and CRASHED & set(answer["codes"]):
            warnings.warn(f"{log}: {answer['codes']}, started again\n{said}", stacklevel=2)
            answer = self._ask(asked)
            said = log.read_text(encoding="utf-8", errors="replace")
        assert (answer["codes"] != [0] * processes) == fails, f"{answer['codes']}\n{said[-4000:]}"
        return said

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._server is None:
            paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
            self._server = subprocess.Popen(
                [sys.executable, __file__],
                env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate()


def kills(stages: Sequence[tuple[str, int]], count: int, seed: int, processes: int = 1) -> list[dict[str, Any]]:
    """`count` deaths in the order in which a run meets them, at random steps and moments of (stage, steps), of all
    processes or of a random one."""
    rng = random.Random(seed)
    places = [(number, step) for number, (_, steps) in enumerate(stages) for step in range(steps)]
    found = []
    for number, step in rng.sample(places, count):
        name, steps = stages[number]
        moment = rng.choice(MOMENTS)
        ranks = list(range(processes)) if rng.random() < 0.5 else [rng.randrange(processes)]
        if moment != "step":
            ranks = [0]  # the first process writes
        place = (number, steps if moment == "finish" else step, MOMENTS.index(moment))
        found.append((place, {"stage": name, "step": place[1], "moment": moment, "ranks": ranks}))
    return [death for _, death in sorted(found, key=lambda item: item[0])]


def _serve() -> None:
    import deepspeed  # noqa: F401
    import matplotlib.backends.backend_agg
    import matplotlib.figure  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import lalm.training.train  # noqa: F401

    get_checkpoint_conversion_mapping("llama")  # a table of all families, made once
    gc.collect()
    gc.freeze()  # else the first collection of every forked process copies the whole heap
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = [_fork(request, rank, port) for rank in range(request["processes"])]
        print(json.dumps({"codes": _wait(children)}), file=answers, flush=True)


def _wait(children: list[int]) -> list[int]:
    """Exit codes; the signal's negative number for a killed one. A failure ends the others after a moment."""
    codes: dict[int, int] = {}
    until = time.monotonic() + LIMIT_SECONDS
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
                if codes[child]:
                    until = min(until, time.monotonic() + 2)
        if time.monotonic() > until:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def _fork(request: dict[str, Any], rank: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | (0 if rank else os.O_TRUNC) | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        # A run that crashes says where, and one that hangs before it is ended.
        faulthandler.enable(sys.__stderr__)
        faulthandler.dump_traceback_later(LIMIT_SECONDS - 5, file=sys.__stderr__)
        os.environ.update(request["environment"])
        world = request["processes"]
        if world > 1:
            names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
            values = (rank, rank, world, world, "127.0.0.1", port)
            os.environ.update(dict(zip(names, map(str, values), strict=True)))
        _run(request, rank)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


def _run(request: dict[str, Any], rank: int) -> None:
    from lalm.recipe.load import load_recipe
    from lalm.training import train

    die = request.get("die")
    if die and rank in die["ranks"]:
        _arrange_death(die)
    if request.get("snapshots"):
        _take_snapshots(Path(request["snapshots"]))
    if request.get("records"):
        _note_records(Path(request["records"]) / f"{rank}.jsonl")
    train.run_recipe(load_recipe(request["recipe"]), **request.get("options", {}))


def _arrange_death(die: dict[str, Any]) -> None:
    from lalm.training import checkpoints
    from lalm.training.run_folder import RunFolder
    from lalm.training.trainer import LalmTrainer

    def before(owner: Any, name: str, is_here: Any) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if is_here(*args):
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        setattr(owner, name, wrapped)

    def is_step(trainer: Any, *args: Any) -> bool:
        return trainer.stage.name == die["stage"] and trainer.state.global_step == die["step"]

    if die["moment"] == "publish":
        # The first checkpoint from that step on.
        before(checkpoints, "publish", lambda staged, final: final.parent.name == die["stage"] and int(
            final.name.rpartition("-")[2]) > die["step"])  # fmt: skip
    elif die["moment"] == "finish":
        before(RunFolder, "mark_done", lambda folder, name, *args: name == die["stage"])
    else:
        before(LalmTrainer, "training_step", is_step)


def _take_snapshots(folder: Path) -> None:
    """Writes every tensor of the model before and after each stage."""
    from safetensors.torch import save_file

    from lalm.training import train

    original = train._train_stage
    folder.mkdir(parents=True, exist_ok=True)

    def wrapped(run: Any, index: int) -> None:
        name = run.recipe.stages[index].name
        for moment in ("before", "after"):
            if moment == "after":
                original(run, index)
            tensors = {key: value.detach().clone() for key, value in run.model.state_dict().items()}
            save_file(tensors, folder / f"{name}-{moment}.safetensors")

    train._train_stage = wrapped


def _note_records(path: Path) -> None:
    """Appends the stage, the step and the ids of every micro-batch of this process."""
    from lalm.training.trainer import LalmTrainer

    original = LalmTrainer.training_step
    path.parent.mkdir(parents=True, exist_ok=True)

    def wrapped(trainer: Any, model: Any, inputs: dict[str, Any], *args: Any) -> Any:
        with path.open("a", encoding="utf-8") as file:
            print(json.dumps([trainer.stage.name, trainer.state.global_step, inputs["record_ids"]]), file=file)
        return original(trainer, model, inputs, *args)

    LalmTrainer.training_step = wrapped  # type: ignore[method-assign]


if __name__ == "__main__":
    _serve()
