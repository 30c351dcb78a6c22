"""`dasvit study`: does the search find better cells than luck does, and than what is there already?"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dasvit.cell.genotype import Genotype, load_genotype
from dasvit.cell.space import Space
from dasvit.config import Config
from dasvit.data import Data
from dasvit.errors import UserError
from dasvit.extras import need
from dasvit.io.run_folder import RunFolder
from dasvit.models.cost import cost_of
from dasvit.report.run.collapse import describe_epochs
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.candidates import FOLDER as FINALS
from dasvit.search.pipeline import search_probe
from dasvit.search.ranking import supernet_scores, weight_scores
from dasvit.search.stages import read_stages
from dasvit.session import load_session
from dasvit.study.cluster import Cluster, read_cluster
from dasvit.study.jobs import Job, Runner
from dasvit.study.plan import Drawn, Variant, cell_key, draw_cells, plan_variants, published_cell, seeded
from dasvit.study.verdicts import write_study

FORMAT = "dasvit-study/1"


def do_study(
    config: Config, options: Mapping[str, Any], reporter: Reporter, deadline: Deadline
) -> tuple[dict[str, Any], list[str]]:
    """Do what is still to be done of a study, and write its report after every phase.

    Args:
        config: The recipe.
        options: run, searches, trainings, random, methods, jobs, cluster, cluster_config, ablate, sweep, resume.
        reporter: Where progress goes.
        deadline: When to stop.

    Returns:
        What `study.json` holds, and the runs that failed.

    Raises:
        UserError: A user's mistake, or no search succeeded.
        Stopped: By a signal or the deadline; the same call goes on.
    """
    cluster = make_cluster(config, options)
    session = load_session(config, options["run"], "study", reporter, deadline)
    config, run = session.config, session.run
    methods = [name.strip() for name in str(options["methods"]).split(",") if name.strip()]
    variants = plan_variants(config, methods, options["ablate"], options["sweep"])
    session.claim("study", options["resume"])
    session.settle_precision(search_probe(session))
    study = Study(run, config, options, variants, session.data, session.runtime, reporter)
    runner = Runner(run.path, reporter, options["jobs"], deadline, cluster=cluster)
    keys = dict.fromkeys(variant.key for variant in variants)
    baselines = 1 + (published_cell(config) is not None)
    runner.left = {"search": len(keys) * options["searches"]}
    runner.left["train"] = (runner.left["search"] + options["random"] + baselines) * options["trainings"]
    runner.total = sum(runner.left.values())
    runner.run(study.search_jobs())
    study.write()
    cells = study.cells()
    spare = runner.left["train"] - len(cells) * options["trainings"]  # of cells that were found twice, or not at all
    runner.left["train"] -= spare
    runner.total -= spare
    for seed in study.seeds("trainings"):
        runner.run(study.train_jobs(cells, seed))
        study.write()
    study.rank(cells)
    return study.write(), runner.failures


def make_cluster(config: Config, options: Mapping[str, Any]) -> Cluster | None:
    """Return where the runs are sent; None: they are done on this machine.

    Raises:
        UserError: The cluster, or what sends runs to it, is not there; or its precision would be measured here.
    """
    if not options["cluster"]:
        if options["cluster_config"]:
            raise UserError("--cluster-config is for runs that are sent to a cluster: say which, as --cluster slurm.")
        return None
    need("cluster", "submitit")
    if options["cluster"] == "slurm" and config.runtime.precision == "auto":
        raise UserError(
            "runtime.precision auto would be measured on a machine that does no run: say float32 or bfloat16."
        )
    return Cluster(options["cluster"], read_cluster(options["cluster_config"]), Path(options["run"]), options["jobs"])


@dataclass
class Study:
    """A study's folder, and what it says so far.

    Attributes:
        run: The folder.
        config: The recipe, with everything settled but the precision.
        options: Of the command.
        variants: What is searched with; the first is compared with luck.
        data: The images.
        runtime: Device and precision; every run has the same.
        reporter: Where progress goes.
        searched: Whether all searches have had their turn.
    """

    run: RunFolder
    config: Config
    options: Mapping[str, Any]
    variants: list[Variant]
    data: Data
    runtime: Runtime
    reporter: Reporter
    searched: bool = False

    def seeds(self, of: str) -> range:
        """Return the seeds of the searches, or of the trainings."""
        return range(self.config.runtime.seed, self.config.runtime.seed + self.options[of])

    def settled(self, config: Config, seed: int) -> Config:
        """Return a run's recipe: a seed, and the study's precision."""
        config = seeded(config, seed)
        config.runtime.precision = self.runtime.precision
        return config

    def search_jobs(self) -> list[Job]:
        """Return all searches, seed by seed."""
        unique = {variant.key: variant for variant in self.variants}
        return [
            Job(f"searches/{key}/seed{seed}", f"search {key}, seed {seed}", self.settled(variant.config, seed))
            for seed in self.seeds("searches")
            for key, variant in unique.items()
        ]

    def found(self) -> dict[str, dict[int, Genotype]]:
        """Return the cells that were found: variant's key → seed → cell."""
        cells: dict[str, dict[int, Genotype]] = {variant.key: {} for variant in self.variants}
        for key, row in cells.items():
            for seed in self.seeds("searches"):
                folder = self.run.path / "searches" / key / f"seed{seed}"
                if (folder / "derivation.json").is_file():
                    row[seed] = load_genotype(folder)
        return cells

    def drawn(self) -> Drawn | None:
        """Return the cells drawn at random, None where the first method found nothing yet."""
        found = self.found()[self.variants[0].key]
        if len(found) < self.options["searches"] and not self.searched:
            return None
        if not found:
            raise UserError(f"no search of {self.variants[0].key} succeeded: see {self.run.path}/logs.")
        macs = [cost_of(cell, self.config.model, len(self.data.classes)).macs for cell in found.values()]
        return draw_cells(self.variants[0].config, len(self.data.classes), macs, self.options["random"])

    def cells(self) -> dict[str, Genotype | str]:
        """Return everything that is trained, by folder: found cells, cells drawn at random, ViT, the paper's cell."""
        self.searched = True
        cells = self.subjects(self.drawn())
        (self.run.path / "cells").mkdir(exist_ok=True)
        for key, subject in cells.items():
            if isinstance(subject, Genotype):
                self.run.write_text(f"cells/{key}.json", subject.to_json())
        return cells

    def subjects(self, drawn: Drawn | None) -> dict[str, Genotype | str]:
        """Return what is to be trained as far as it is known."""
        published = published_cell(self.config)
        found = [cell for row in self.found().values() for cell in row.values()]
        cells = [*([published] if published else []), *found, *(drawn.cells if drawn else [])]
        return {"vit": "vit", **{cell_key(cell): cell for cell in cells}}

    def names(self) -> dict[str, str]:
        """Return what the networks are called on the terminal, by folder."""
        drawn, published = self.drawn(), published_cell(self.config)
        names = {cell_key(cell): f"random cell {i + 1}" for i, cell in enumerate(drawn.cells if drawn else [])}
        for key, row in self.found().items():
            names |= {cell_key(cell): f"the cell of {key}, seed {seed}" for seed, cell in row.items()}
        if published:
            names[cell_key(published)] = "the published cell"
        return {**names, "vit": "ViT"}

    def train_jobs(self, cells: Mapping[str, Genotype | str], seed: int) -> list[Job]:
        """Return the trainings with one seed."""
        config, names, jobs = self.settled(self.config, seed), self.names(), []
        for key, subject in cells.items():
            cell = f"cells/{key}.json" if isinstance(subject, Genotype) else ""
            label = f"train {names[key]}, seed {seed}"
            jobs.append(Job(f"trainings/{key}/seed{seed}", label, config, subject, cell))
        return jobs

    def rank(self, cells: Mapping[str, Genotype | str]) -> None:
        """Have every supernet rank the cells, where that was not done before."""
        ranked = {key: cell for key, cell in cells.items() if isinstance(cell, Genotype) and self.fits(cell)}
        (self.run.path / "rankings").mkdir(exist_ok=True)
        for job in self.search_jobs():
            folder, name = self.run.path / job.folder, ranking_file(job.folder)
            known = read_json(self.run.path / name).get("supernet_top1", {})
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

    def write(self) -> dict[str, Any]:
        """Write `study.json`, `study.md` and `report.html` from the run folders; return the first's content."""
        return write_study(self.run.path, self.gather())

    def gather(self) -> dict[str, Any]:
        """Return what the run folders say so far."""
        drawn, published = self.drawn(), published_cell(self.config)
        searches = [self.describe_search(job) for job in self.search_jobs() if job.is_done(self.run.path)]
        return {
            "format": FORMAT,
            "name": self.run.path.resolve().name,
            "options": {key: self.options[key] for key in ("searches", "trainings", "random", "ablate", "sweep")},
            "data": self.config.data.name,
            "machine": {key: self.run.notes().get(key) for key in ("machine", "device", "precision", "versions")},
            "epochs": {
                "search": sum(self.variants[0].config.search.stages.epochs),
                "train": self.config.train.epochs,
            },
            "test_images": len(self.data.test),
            "variants": [{"key": v.key, "label": v.label, "group": v.group, "value": v.value} for v in self.variants],
            "searches": searches,
            "cells": {key: self.describe_cell(key, subject) for key, subject in self.subjects(drawn).items()},
            "random": {
                "cells": [cell_key(cell) for cell in drawn.cells] if drawn else [],
                "macs": drawn.macs if drawn else None,
                "tolerance": drawn.tolerance if drawn else None,
            },
            "vit": "vit",
            "published": cell_key(published) if published else None,
        }

    def describe_search(self, job: Job) -> dict[str, Any]:
        """Return what a search's folder says, and how its supernet and its weights rank cells."""
        run = RunFolder(self.run.path / job.folder, "search")
        _, variant, seed = job.folder.split("/")
        cell, space = load_genotype(run.path), Space.from_config(job.config.space)
        ranking = read_json(self.run.path / ranking_file(job.folder))
        cells = {key: load_genotype(self.run.path / f"cells/{key}.json") for key in ranking.get("supernet_top1", {})}
        derive = job.config.search.derive
        if cells:
            scores = weight_scores(read_stages(run, space), space, derive.rule, list(cells.values()))
            ranking["log_weight"] = dict(zip(cells, scores, strict=True))
        finals = (RunFolder(folder, "train") for folder in sorted((run.path / FINALS).glob("*/")))
        epochs = [row for one in (run, *finals) for row in one.rows("metrics.jsonl")]
        return {
            "run": job.folder,
            "variant": variant,
            "seed": int(seed.removeprefix("seed")),
            "cell": cell_key(cell),
            "derivation": str(read_json(run.path / "derivation.json").get("reason", "")),
            "seconds": sum(row["seconds"] for row in epochs),
            "peak_memory_mib": max((row.get("peak_memory_mib") or 0 for row in epochs), default=0) or None,
            "epochs": describe_epochs(run.rows("architecture.jsonl")),
            "ranking": ranking or None,
        }

    def describe_cell(self, key: str, subject: Genotype | str) -> dict[str, Any]:
        """Return what is known of a network: its cost, and its trainings so far."""
        cost = cost_of(subject, self.config.model, len(self.data.classes))
        trainings = []
        for seed in self.seeds("trainings"):
            folder = f"trainings/{key}/seed{seed}"
            if (self.run.path / folder / "model" / "config.json").is_file():
                result = read_json(self.run.path / folder / "result.json")
                trainings.append({"run": folder, "seed": seed, "top1": result["top1"], "top5": result["top5"]})
        top1 = [training["top1"] for training in trainings]
        return {
            "genotype": subject.to_dict() if isinstance(subject, Genotype) else None,
            "params": cost.params,
            "macs": cost.macs,
            "trainings": trainings,
            "top1": statistics.fmean(top1) if top1 else None,
        }


def ranking_file(folder: str) -> str:
    """Return where a search's ranking is kept, within the study's folder."""
    return f"rankings/{folder.removeprefix('searches/').replace('/', '_')}.json"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file of ours, an empty one where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{path} is damaged: delete it, and give the command again.") from None
    return dict(content)
