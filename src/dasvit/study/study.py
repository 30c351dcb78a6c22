"""`dasvit study`: does the search find better cells than luck does, and than what is there already?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasvit.cell.genotype import Genotype
from dasvit.cell.space import Space
from dasvit.cell.subnet import Found, cell_key, cell_kind, load_found
from dasvit.config import Config
from dasvit.config.methods import find_method
from dasvit.config.validation import has_sizes
from dasvit.data import Data
from dasvit.errors import UserError
from dasvit.extras import need
from dasvit.io.run_folder import RunFolder
from dasvit.latency.table import own_table, with_table
from dasvit.models.cost import cost_of, make_on_meta
from dasvit.report.study.words import REFERENCES
from dasvit.runtime.cluster import Place, Processes, open_cluster
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.pipeline import check_search
from dasvit.search.ranking import supernet_scores
from dasvit.search.time_budget import search_probe
from dasvit.session import load_session
from dasvit.study.compute import images_for_weights
from dasvit.study.describe import describe_cell, describe_search, ranking_file, read_json
from dasvit.study.estimate import expect_study
from dasvit.study.jobs import Job, Runner
from dasvit.study.options import StudyOptions
from dasvit.study.plan import (
    CONTROL,
    TRAINING_SEEDS,
    Drawn,
    Variant,
    check_seeds,
    draw_cells,
    plan_control,
    plan_variants,
    reference_cells,
)
from dasvit.study.result import StudyResult
from dasvit.study.verdicts import write_study
from dasvit.training.figure import figure_of
from dasvit.training.loop import check_sizes
from dasvit.training.multilabel import check_training

FORMAT = "dasvit-study/2"

OPTIONS = ("searches", "trainings", "control", "random", "ablate", "sweep")
"""What `study.json` says of the command's options."""
BASELINES = ("vit", "vit_shift")
"""Networks that are no cells; their names are their folders', too."""


def do_study(
    config: Config, options: StudyOptions, reporter: Reporter, deadline: Deadline, *, resume: bool = False
) -> StudyResult:
    """Do what is still to be done of a study, and write its report after every phase.

    Raises:
        UserError: A user's mistake, or no search succeeded.
        Stopped: By a signal or the deadline; the same call goes on.
    """
    if has_sizes(config.space) or config.space.cell:
        raise UserError(
            "a study compares cells at one size: leave out space.widths and the like, and space.cell (docs/sizes.md "
            "says how a search over sizes is held against a tuned ViT)."
        )
    place = place_of(config, options)
    options = replace(options, control=options.searches if options.control < 0 else options.control)
    for name in BASELINES:  # at sizes that they have not, a study would end at its end
        make_on_meta(name, config.model, 10, token=config.train.adds_token)
    check_seeds(config, max(options.searches, options.control), options.trainings)

    def check(labels: NDArray[np.int64], classes: Sequence[str], runtime: Runtime) -> None:
        check_search(config, labels, classes, runtime)
        check_sizes(len(labels), config.train, runtime.world)
        check_training(config.train, labels)

    session = load_session(config, options.run, "study", reporter, deadline, check)
    with session.locked():
        config, run = session.config, session.run
        methods = [name.strip() for name in options.methods.split(",") if name.strip()]
        variants = plan_variants(config, methods, options.ablate, options.sweep)
        if options.control:
            variants.append(plan_control(variants[0].config, images_for_weights(config, len(session.data.train))))
        session.claim("study", resume)
        table = own_table(config, session.classes, run, reporter).search.latency.table
        variants = [replace(variant, config=with_table(variant.config, table)) for variant in variants]
        session.settle_precision(search_probe(session))
        study = Study(run, config, options, variants, session.data, session.runtime, reporter)
        runner = Runner(run.path, reporter, deadline, place)
        baselines = len(BASELINES) + len(reference_cells(config))
        runner.left = {"search": len(study.search_jobs())}
        runner.left["train"] = (runner.left["search"] + options.random + baselines) * options.trainings
        runner.total = sum(runner.left.values())
        expect_study(session, variants, runner)
        with session.timed():
            study.do(runner)
        return StudyResult(Path(options.run), study.write()["summary"], runner.failures)


def place_of(config: Config, options: StudyOptions) -> Place | None:
    """Return where the runs are done; None: in this process.

    Raises:
        UserError: The cluster, or what sends runs to it, is not there; or its precision would be measured here.
    """
    if not options.cluster:
        if options.cluster_config:
            raise UserError("--cluster-config is for runs that are sent to a cluster: say which, as --cluster slurm.")
        return Processes(options.jobs) if options.jobs > 1 else None
    need("cluster", "submitit")
    precision = config.runtime.precision
    return open_cluster(options.cluster, options.cluster_config, options.run, options.jobs, precision)


@dataclass
class Study:
    """A study's folder, and what it says so far.

    Attributes:
        run: The folder.
        config: The recipe, with everything settled but the precision.
        options: What is asked for, the control's searches settled.
        variants: What is searched with, the control last. The first one's cost is the random cells'.
        data: The images.
        runtime: Device and precision; every run has the same.
        reporter: Where progress goes.
        searched: Whether all searches have had their turn.
    """

    run: RunFolder
    config: Config
    options: StudyOptions
    variants: list[Variant]
    data: Data
    runtime: Runtime
    reporter: Reporter
    searched: bool = False

    def do(self, runner: Runner) -> None:
        """Search, train what was found with every seed, and rank it; the report is written after each of them."""
        runner.run(self.search_jobs())
        self.write()
        cells = self.cells()
        # Cells that were found twice, or not at all.
        spare = runner.left["train"] - len(cells) * self.options.trainings
        runner.left["train"] -= spare
        runner.total -= spare
        for seed in self.training_seeds:
            runner.run(self.train_jobs(seed))
            self.write()
        self.rank(cells)

    def seeds(self, key: str) -> range:
        first = self.config.runtime.seed
        return range(first, first + (self.options.control if key == CONTROL else self.options.searches))

    @property
    def training_seeds(self) -> range:
        """The seeds of the trainings: none of the searches'."""
        first = self.config.runtime.seed + TRAINING_SEEDS
        return range(first, first + self.options.trainings)

    def settled(self, config: Config, seed: int) -> Config:
        """Return a run's recipe: a seed, and the study's precision."""
        return replace(config, runtime=replace(config.runtime, seed=seed, precision=self.runtime.precision))

    def search_jobs(self) -> list[Job]:
        unique = {variant.key: variant for variant in self.variants}
        pairs = [(seed, variant) for variant in unique.values() for seed in self.seeds(variant.key)]
        return [
            Job(f"searches/{variant.key}/seed{seed}", f"search {variant.key}, seed {seed}", config)
            for seed, variant in sorted(pairs, key=lambda pair: pair[0])
            for config in [self.settled(variant.config, seed)]
        ]

    def found(self) -> dict[str, dict[int, Found]]:
        """Return the cells and networks that were found: variant's key → seed → cell."""
        cells: dict[str, dict[int, Found]] = {variant.key: {} for variant in self.variants}
        for key, row in cells.items():
            for seed in self.seeds(key):
                folder = self.run.path / "searches" / key / f"seed{seed}"
                if (folder / "derivation.json").is_file():
                    row[seed] = load_found(folder)
        return cells

    def drawn(self) -> Drawn | None:
        """Return the cells drawn at random, None where the first method found nothing yet."""
        found = self.found()[self.variants[0].key]
        if len(found) < self.options.searches and not self.searched:
            return None
        if not found:
            raise UserError(f"no search of {self.variants[0].key} succeeded: see {self.run.path}/logs.")
        macs = [cost_of(cell, self.config.model, len(self.data.classes)).macs for cell in found.values()]
        return draw_cells(self.variants[0].config, len(self.data.classes), macs, self.options.random)

    def cells(self) -> dict[str, Found | str]:
        """Return everything that is trained, by folder, and write the cells' and networks' files."""
        self.searched = True
        (self.run.path / "cells").mkdir(exist_ok=True)
        cells = {key: subject for key, (_, subject) in self.networks().items()}
        for key, subject in cells.items():
            if not isinstance(subject, str):
                self.run.write_text(f"cells/{key}.json", subject.to_json())
        return cells

    def networks(self) -> dict[str, tuple[str, Found | str]]:
        """Return what is to be trained as far as it is known, by folder: its name on the terminal, and what it is."""
        networks: dict[str, tuple[str, Found | str]] = {name: (REFERENCES[name], name) for name in BASELINES}
        drawn = self.drawn()
        cells: list[tuple[str, Found]] = []
        cells += [(f"the {REFERENCES[name]}", cell) for name, cell in reference_cells(self.config).items()]
        for key, row in self.found().items():
            cells += [(f"the {cell_kind(cell)} of {key}, seed {seed}", cell) for seed, cell in row.items()]
        cells += [(f"random cell {i + 1}", cell) for i, cell in enumerate(drawn.cells if drawn else [])]
        for name, cell in cells:  # found twice, it has the first name
            networks.setdefault(cell_key(cell), (name, cell))
        return networks

    def train_jobs(self, seed: int) -> list[Job]:
        config = self.settled(self.config, seed)
        return [
            Job(f"trainings/{key}/seed{seed}", f"train {name}, seed {seed}", config, subject, f"cells/{key}.json")
            for key, (name, subject) in self.networks().items()
        ]

    def rank(self, cells: Mapping[str, Found | str]) -> None:
        """Have every supernet rank the cells, where that was not done before."""
        ranked = {key: cell for key, cell in cells.items() if isinstance(cell, Genotype) and self.fits(cell)}
        (self.run.path / "rankings").mkdir(exist_ok=True)
        for job in self.search_jobs():
            folder, name = self.run.path / job.folder, ranking_file(job.folder)
            known = read_json(self.run.path / name).get("supernet_top1", {})
            if not find_method(job.config.search.method).trains_supernet:
                continue
            if not job.is_done(self.run.path) or set(ranked) <= set(known):
                continue
            self.reporter.say(f"{job.folder}: its supernet ranks {len(ranked)} cells")
            images = job.config.search.monitor
            scores = supernet_scores(job.config, self.data, folder, list(ranked.values()), self.runtime, images)
            if scores is None:
                continue
            stage, layers, values = scores
            top1 = dict(zip(ranked, values, strict=True))
            self.run.write_json(name, {"stage": stage, "layers": layers, "supernet_top1": top1})

    def fits(self, cell: Genotype) -> bool:
        """Tell whether a cell is of the search space (the paper's need not be)."""
        space = Space.from_config(self.config.space)
        return cell.nodes == space.nodes and set(cell.ops) <= set(space.operations)

    def control(self) -> dict[str, Any] | None:
        """Return how the control was laid out, None where there is none."""
        finals = next((v.config.search.finals for v in self.variants if v.key == CONTROL), None)
        if finals is None:
            return None
        matched = "finals" if self.variants[0].config.search.finals.cells else "images"
        return {"finalists": finals.cells, "rungs": finals.rungs, "matched": matched}

    def write(self) -> dict[str, Any]:
        return write_study(self.run.path, self.gather())

    def gather(self) -> dict[str, Any]:
        """Return what the run folders say so far."""
        drawn, references = self.drawn(), reference_cells(self.config)
        root, images = self.run.path, len(self.data.train)
        searches = [describe_search(root, job, images) for job in self.search_jobs() if job.is_done(root)]
        figure = figure_of(self.config.search.metric, self.data.multilabel)
        cells = {
            key: describe_cell(root, key, subject, self.config, len(self.data.classes), self.training_seeds, figure)
            for key, (_, subject) in self.networks().items()
        }
        return {
            "format": FORMAT,
            "name": self.run.path.resolve().name,
            "options": {key: getattr(self.options, key) for key in OPTIONS},
            "seeds": {"search": self.config.runtime.seed, "train": self.training_seeds.start},
            "data": self.config.data.name,
            "figure": figure,
            "machine": {key: self.run.notes().get(key) for key in ("machine", "device", "precision", "versions")},
            "epochs": {"search": sum(self.variants[0].config.search.stages.epochs), "train": self.config.train.epochs},
            "test_images": len(self.data.test),
            "variants": [{"key": v.key, "label": v.label, "group": v.group, "value": v.value} for v in self.variants],
            "searches": searches,
            "control": self.control(),
            "cells": cells,
            "random": {
                "cells": [cell_key(cell) for cell in drawn.cells] if drawn else [],
                "macs": drawn.macs if drawn else None,
                "tolerance": drawn.tolerance if drawn else None,
            },
            **{name: name for name in BASELINES},
            **{name: cell_key(references[name]) if name in references else None for name in ("published", "shipped")},
        }
