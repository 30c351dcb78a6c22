"""The scripts of examples/slurm: what bash and the command line say of them, and when they queue a job again."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from dasvit.cli.parsing import parse
from dasvit.commands.options import SearchOptions, StudyOptions
from dasvit.runtime.cluster import read_cluster

ROOT = Path(__file__).parents[1]
SLURM = ROOT / "examples" / "slurm"
SCRIPTS = sorted(SLURM.glob("*.sbatch"))
STUBS = {
    "srun": 'printf "%s\\n" "$@" > "$LOG/srun"; [[ -z $WRITES ]] || touch "$WRITES"; exit "$STATUS"',
    "scontrol": 'echo "$@" >> "$LOG/scontrol"; [[ $1 != show ]] || printf "n7\\nn8\\n"',
}


def submit(script: Path, log: Path, *arguments: str, status: int = 0, writes: str = "") -> int:
    """Run a script with Slurm's commands replaced; return its exit status."""
    for name, text in STUBS.items():
        (log / "bin").mkdir(exist_ok=True)
        (log / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (log / "bin" / name).chmod(0o755)
    environment = {
        "PATH": f"{log}/bin:{os.environ['PATH']}",
        "LOG": str(log),
        "STATUS": str(status),
        "WRITES": str(log / writes) if writes else "",
        "SLURM_JOB_ID": "42",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "n[7-8]",
        "SLURM_GPUS_ON_NODE": "4",
    }
    return subprocess.run(["bash", script, *arguments], env=environment, check=False, cwd=log).returncode


def dasvit_of(log: Path) -> list[str]:
    """Return the command line of dasvit in what srun was to start."""
    words = (log / "srun").read_text().splitlines()
    return words[words.index("dasvit") + 1 :]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_the_scripts(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("name", ["node.sbatch", "nodes.sbatch"])
@pytest.mark.parametrize(
    ("status", "writes", "again"),
    [
        (0, "genotype.json", False),
        (0, "network.json", False),
        (0, "result.json", False),
        (0, "", True),
        (143, "", False),
    ],
    ids=["a search ended", "one of networks ended", "a training ended", "time up", "preempted or cancelled"],
)
def test_a_run_is_queued_again_until_it_has_ended(
    name: str, status: int, writes: str, again: bool, tmp_path: Path
) -> None:
    ended = submit(SLURM / name, tmp_path, str(tmp_path), "search", "--resume", status=status, writes=writes)
    assert ended == status
    log = tmp_path / "scontrol"
    assert ("requeue 42" in (log.read_text() if log.exists() else "")) == again
    command, *arguments = dasvit_of(tmp_path)
    options, _ = parse(command, arguments)
    limit = re.search(r"--time=(\d\d):00:00", (SLURM / name).read_text())
    assert limit and isinstance(options, SearchOptions)
    assert options.max_minutes == 60 * int(limit[1]) - 10 and options.run == str(tmp_path)


def test_several_nodes_meet_on_the_first(tmp_path: Path) -> None:
    submit(SLURM / "nodes.sbatch", tmp_path, "runs/a", "train", "--model", "vit")
    words = (tmp_path / "srun").read_text().splitlines()
    assert words[words.index("--rdzv_endpoint") + 1] == "n7:29500" and words[words.index("--nnodes") + 1] == "2"


def test_the_study_sends_its_runs(tmp_path: Path) -> None:
    assert submit(SLURM / "study.sbatch", tmp_path, "runs/s", "--config", "digits-study", status=3) == 3
    command, *arguments = dasvit_of(tmp_path)
    options, _ = parse(command, arguments)
    assert (
        command == "study" and isinstance(options, StudyOptions) and options.cluster == "slurm" and options.jobs == 64
    )
    assert read_cluster(str(ROOT / options.cluster_config)).partition == "gpu"
