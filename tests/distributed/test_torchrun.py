"""A job as users start it: torchrun itself restarts it, and ends it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL, SIGTERM

from nayer_cli.runs.folder import RunFolder
from peers import Fault, command, job
from quick import WITHOUT_DATA, metrics, quick, write

HELPERS = Path(__file__).parents[1] / "helpers"


def torchrun(words: list[str], *faults: Fault) -> tuple[int, str]:
    """Start a job of two processes that may be restarted once; return its exit code and what it said of faults."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    script = [str(HELPERS / "launched.py"), json.dumps([fault._asdict() for fault in faults])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAYER_")}
    patient = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "100000"}  # a busy machine may take its time to save
    done = subprocess.run([*launcher, *script, *words], capture_output=True, text=True, env=environment | patient)
    return done.returncode, done.stderr


def test_a_job_survives_a_killed_process_and_can_be_ended(tmp_path):
    settings = quick(tmp_path, WITHOUT_DATA)
    words, run = write("distill", settings), Path(settings["output.out"])
    killed = Fault(rank=1, step=5, signal=SIGKILL)
    ended = Fault(rank=0, step=2, signal=SIGTERM, attempt=1, to_launcher=True)  # it goes on from the last checkpoint
    code, said = torchrun(words, killed, ended)
    *of_the_first, last = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code != 0 and last == "error: terminated"
    # Of a process that lost its peer, which the launcher may end first: how long it waits there cannot be set.
    assert all("another process of this job has ended" in line for line in of_the_first)
    assert f"continue with --resume {run}" in said
    assert len(RunFolder(run).checkpoints.all()) == 2
    assert [one.code for one in job(command, words, size=1)] == [0]
    result = json.loads(RunFolder(run).result.read_text())
    assert result["images"] == {"synthesized": 60, "seen": 96} and result["processes"] == 1
    assert [record["epoch"] for record in metrics(run)] == [1, 2, 3]
    assert len(json.loads(RunFolder(run).about.read_text())["starts"]) == 3
