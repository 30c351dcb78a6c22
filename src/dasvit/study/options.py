"""What a study is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from dasvit.config.ranges import at_least


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """What a study is asked for, besides its recipe.

    Attributes:
        run: Folder that the runs and the report are written to.
        searches: Searches with each method, seed by seed from runtime.seed on.
        trainings: Trainings of each network, with the same seeds for all, no search's.
        control: Searches of the control, the best of evenly drawn cells (default: as many as --searches; 0: none).
        random: Random cells of the found cells' multiply-adds.
        methods: Search methods; the first one's cost is the random cells' (default: dasvit,darts).
        ablate: Also search without tokens, fairness, stages, finals.
        sweep: Also search with several λ and ρ.
        jobs: Runs beside each other, each a process with its share of the cores.
        cluster: Send the runs to slurm as an array, at most --jobs of them at once (local: as jobs on this machine).
        cluster_config: YAML file of what a run asks for: partition, account, qos, constraint, minutes, cpus, gpus,
            memory.
    """

    run: str = "runs/study"
    searches: int = at_least(1, default=4)
    trainings: int = at_least(1, default=3)
    control: int = -1
    random: int = at_least(1, default=12)
    methods: str = "dasvit,darts"
    ablate: bool = False
    sweep: bool = False
    jobs: int = at_least(1, default=1)
    cluster: str = ""
    cluster_config: str = ""
