"""A job that torchrun starts: it restarts it, and ends it."""

import json
from pathlib import Path
from signal import SIGKILL, SIGTERM

from nayer_cli.runs.folder import RunFolder
from peers import Fault, command, job, launch
from quick import WITHOUT_DATA, metrics, quick, write


def test_a_job_survives_a_killed_process_and_can_be_ended(tmp_path):
    settings = quick(tmp_path, WITHOUT_DATA)
    words, run = write("distill", settings), Path(settings["output.out"])
    killed = Fault(rank=1, step=5, signal=SIGKILL)
    ended = Fault(rank=0, step=2, signal=SIGTERM, attempt=1, to_launcher=True)  # it goes on from the last checkpoint
    ((code, _, _, said),) = job(launch, words, killed, ended, size=1)
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
