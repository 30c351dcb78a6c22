"""`dasvit study` from end to end: what it runs, that it goes on, and that its numbers are those of the run folders."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dasvit.cell.genotype import Genotype, is_viable, load_genotype
from dasvit.cell.space import Space
from dasvit.cell.subnet import cell_key
from dasvit.cli.parsing import parse
from dasvit.config import Config, recipe
from dasvit.config.methods import with_method
from dasvit.data import load_data, split_indices
from dasvit.errors import Stopped, UserError
from dasvit.models.cost import cost_of
from dasvit.runtime.cluster import Processes
from dasvit.runtime.distributed import Runtime
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.search.candidates import read_rungs
from dasvit.search.monitor import evaluate_cell, kept_supernet
from dasvit.search.ranking import supernet_scores, weight_scores
from dasvit.search.stages import StageWeights
from dasvit.search.supernet import ForwardMode, Supernet
from dasvit.study import jobs as study_jobs
from dasvit.study.compute import images_for_weights, planned_images
from dasvit.study.describe import describe_cell
from dasvit.study.plan import check_seeds, draw_cells, plan_control, plan_variants, reference_cells
from dasvit.study.verdicts import write_study
from dasvit.training.pipeline import run_training
from helpers import SMALL, call_cli, tree

TWO_STAGES = '--search.stages={"layers":[1,1],"keep":[0,2],"epochs":[2,1],"weight_epochs":[1,0]}'
STUDY = [*SMALL, TWO_STAGES, "--search.finals.rungs=[1]", "--searches=2", "--trainings=2", "--random=3"]


def config_of(*arguments: str) -> Config:
    config = parse("study", [*SMALL, *arguments])[1]
    assert config is not None
    return config


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A study as small as they come, in this process; not to be changed."""
    root = tmp_path_factory.mktemp("runs") / "study"
    status, out, err = call_cli("study", *STUDY, "--run", root, "--json")
    assert status == 0, err
    answer = json.loads(out)
    assert answer["run"] == str(root)
    content: dict[str, Any] = json.loads((root / "study.json").read_text())
    assert content["summary"] == {key: value for key, value in answer.items() if key != "run"}
    return root, content


# --- what is run ----------------------------------------------------------------------------------------------------


def test_everything_is_trained_with_the_same_seeds(study: tuple[Path, dict[str, Any]]) -> None:
    root, content = study
    assert [s["run"] for s in content["searches"]] == [
        f"searches/{m}/seed{k}" for k in (0, 1) for m in ("dasvit", "darts", "control")
    ]
    found = {cell_key(load_genotype(root / s["run"])) for s in content["searches"]}
    assert {s["cell"] for s in content["searches"]} == found
    (published,) = reference_cells(config_of()).values()  # the shipped cell is of another space
    assert set(content["cells"]) == {"vit", "vit_shift", cell_key(published), *found, *content["random"]["cells"]}
    for key, cell in content["cells"].items():
        assert [t["run"] for t in cell["trainings"]] == [f"trainings/{key}/seed{k}" for k in (1000, 1001)]
        for training in cell["trainings"]:
            result = json.loads((root / training["run"] / "result.json").read_text())
            assert result["top1"] == training["top1"] and result["macs"] == cell["macs"]
            environment = json.loads((root / training["run"] / "environment.json").read_text())
            assert environment["seed"] == training["seed"]


def test_random_cells_cost_what_found_ones_do(study: tuple[Path, dict[str, Any]]) -> None:
    _, content = study
    macs = [content["cells"][s["cell"]]["macs"] for s in content["searches"] if s["variant"] == "dasvit"]
    luck = content["random"]
    assert luck["macs"] == sum(macs) / 2 and len(set(luck["cells"])) == 3
    for key in luck["cells"]:
        assert abs(content["cells"][key]["macs"] / luck["macs"] - 1) <= luck["tolerance"] + 1e-3


def test_the_control_spends_what_the_method_does(study: tuple[Path, dict[str, Any]]) -> None:
    """dasvit has no finals here: three epochs of 30 images for the weights, two of 30 for alpha; a finalist has 20."""
    root, content = study
    assert content["control"] == {"finalists": 8, "rungs": [1.0], "matched": "images"}
    rows = {row["key"]: row for row in content["summary"]["variants"]}
    assert rows["control"]["label"] == "best of 8 drawn evenly" and rows["control"]["group"] == "control"
    for search in content["searches"]:
        run = root / search["run"]
        finalists = sorted((run / "finals").glob("*/"))
        assert search["core_seconds"] == pytest.approx(search["seconds"] * torch.get_num_threads())
        if search["variant"] == "control":
            assert len(finalists) == 8 and search["images"] == 8 * 20
            ranked = json.loads((run / "derivation.json").read_text())["finals"]
            reached = {load_genotype(f): read_rungs(f)[-1].loss for f in finalists}
            # The best, or the cheapest of those that the validation images cannot tell from it.
            first = min(ranked, key=lambda row: row["loss"])
            assert reached[load_genotype(run)] == ranked[0]["loss"] and ranked[0]["macs"] <= first["macs"]
        else:
            lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            assert not finalists and search["images"] == 30 * (3 + sum("val_loss" in line for line in lines)) == 150
    assert all(row["over_control"]["mean"] is not None for row in rows.values() if row["group"] == "methods")


def test_the_monitor_saw_every_epoch(study: tuple[Path, dict[str, Any]]) -> None:
    root, content = study
    for search in content["searches"]:
        if search["variant"] == "control":
            continue
        assert len(search["epochs"]) == 3
        lines = [json.loads(line) for line in (root / search["run"] / "architecture.jsonl").read_text().splitlines()]
        for row, line in zip(search["epochs"], lines, strict=True):
            assert row["gap"] == line["monitor"]["mixture_top1"] - line["monitor"]["derived_top1"]
    assert len(content["summary"]["ranking"]) == 4
    stages = {row["variant"]: (row["stage"], row["cells"]) for row in content["summary"]["ranking"]}
    # Of all networks but the ViTs and the paper's cell, which are not of this space.
    assert stages == {name: (1, len(content["cells"]) - 3) for name in ("dasvit", "darts")}


def test_the_report_shows_control_references_and_compute(study: tuple[Path, dict[str, Any]]) -> None:
    root, content = study
    markdown, page = ((root / name).read_text(encoding="utf-8") for name in ("study.md", "report.html"))
    for name in (
        "best of 8 drawn evenly",
        "ViT with shift (sd over trainings)",
        "images of a search",
        "τ, sum of ratios",
    ):
        assert name in markdown and name in page
    assert "Test top-1 against compute" in page and "8 evenly drawn cells by validation: as many as" in markdown
    assert all("luck (best of 8 drawn evenly)" in text for text in content["summary"]["verdicts"])


def test_the_same_command_does_nothing_again(study: tuple[Path, dict[str, Any]]) -> None:
    root, _ = study
    before = {name: digest for name, digest in tree(root).items() if name != "report.html"}
    status, out, err = call_cli("study", *STUDY, "--run", root)
    assert status == 0, err
    assert "report.html: open it in a browser" in out and "dasvit: " in out
    assert {name: digest for name, digest in tree(root).items() if name != "report.html"} == before


@pytest.mark.parametrize(("how", "count"), [("--jobs=2", 3), ("--cluster=local", 1)], ids=["processes", "cluster"])
def test_processes_end_where_one_does(study: tuple[Path, dict[str, Any]], how: str, count: int, tmp_path: Path) -> None:
    """A search and two trainings are missing, and come from processes (or the search from submitit): the same."""
    root, whole = study
    shutil.copytree(root, tmp_path / "s")
    search = next(s for s in whole["searches"] if s["variant"] == "dasvit")
    missing = [search["run"], "trainings/vit/seed1001", f"trainings/{search['cell']}/seed1000"][:count]
    for folder in missing:
        shutil.rmtree(tmp_path / "s" / folder)
    (tmp_path / "s" / "study.json").unlink()
    status, _, err = call_cli("study", *STUDY, "--run", tmp_path / "s", how)
    assert status == 0, err
    for folder in missing:
        assert f"({tmp_path / 's' / folder}/report.html)" in err
    assert err.count("/report.html)") == count
    content = json.loads((tmp_path / "s" / "study.json").read_text())
    assert content["cells"] == whole["cells"] and repeated(content["summary"]) == repeated(whole["summary"])
    name = "architecture.jsonl"
    assert (tmp_path / "s" / search["run"] / name).read_text() == (root / search["run"] / name).read_text()


def repeated(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a summary without what a machine does differently every time."""
    measured = {"seconds", "core_seconds", "peak_memory_mib"}
    rows = [{key: value for key, value in row.items() if key not in measured} for row in summary["variants"]]
    assert all(row["seconds"] > 0 for row in summary["variants"])
    return {**summary, "variants": rows}


def test_stopped_at_a_step(tmp_path: Path) -> None:
    status, _, err = call_cli("study", *STUDY, "--run", tmp_path / "s", "--max-minutes", 1e-9)
    assert status == 0 and "the time is up" in err and "Go on with" in err
    assert not (tmp_path / "s" / "study.json").exists()


def test_what_fails_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run_training

    def fail(config: Config, subject: Any, *rest: Any, **more: Any) -> Any:
        if subject == "vit":
            raise UserError("it diverged.")
        return real(config, subject, *rest, **more)

    monkeypatch.setattr(study_jobs, "run_training", fail)
    arguments = [
        "--searches=1",
        "--trainings=1",
        "--control=0",
        "--random=2",
        "--methods=dasvit",
        "--run",
        tmp_path / "s",
    ]
    status, _, err = call_cli("study", *SMALL, *arguments)
    assert status == 2 and "1 run(s) failed" in err and "train ViT, seed 1000: it diverged." in err
    summary = json.loads((tmp_path / "s" / "study.json").read_text())["summary"]
    assert summary["vit"]["mean"] is None and summary["variants"][0]["over_vit"] is None
    assert summary["variants"][0]["mean"] is not None


def test_a_study_compares_by_the_metric_of_the_task(study: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """What its cells reached is that share, and its texts say so."""
    folder, content = study
    assert content["figure"] == "top1"
    key, cell = next((key, cell) for key, cell in content["cells"].items() if cell["trainings"] and cell["genotype"])
    config = recipe.load(folder / "config.yaml")
    found = describe_cell(folder, key, Genotype.from_dict(cell["genotype"]), config, 10, [1000], "macro_f1")
    (trained,) = found["trainings"][:1]
    assert found["top1"] == trained["top1"] == trained["macro_f1"] != cell["top1"]
    page = write_study(tmp_path, {**content, "figure": "macro_f1"})
    text = (tmp_path / "study.md").read_text()
    assert page["figure"] == "macro_f1" and "macro-F1" in text and "top-1" not in text


def test_a_failing_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_jobs, "arguments", lambda job, root: ["search", "--config", "nowhere.yaml"])
    said: list[str] = []
    reporter = Reporter(quiet=True)
    monkeypatch.setattr(reporter, "say", said.append)
    runner = study_jobs.Runner(tmp_path, reporter, Deadline(), Processes(2), {"search": 1, "train": 0}, 1)
    runner.run([study_jobs.Job("searches/a/seed0", "search a", config_of())])
    assert len(runner.failures) == 1 and "nowhere.yaml" in runner.failures[0] and "failed" in said[-1]


def test_a_signal_stops_the_processes(tmp_path: Path) -> None:
    """A child of ours sends SIGTERM to its parent, the study; the other runs are told, and nothing new begins."""
    code = f"""
import os, signal, sys
sys.argv = ["dasvit"]
from dasvit.study import jobs as study_jobs
from dasvit.errors import Stopped
from dasvit.runtime.progress import Reporter
from dasvit.runtime.saver import Deadline
from dasvit.runtime.cluster import Processes
from pathlib import Path
kill = "import os, signal, time; os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)"
study_jobs.arguments = lambda job, root: []
study_jobs.sys.executable = {str(tmp_path / "kill")!r}
Path(study_jobs.sys.executable).write_text(f"#!{sys.executable}\\n{{kill}}\\n")
os.chmod(study_jobs.sys.executable, 0o755)
jobs = [study_jobs.Job(f"searches/{{i}}/seed0", "search", None) for i in range(3)]
root, left = Path({str(tmp_path)!r}), {{"search": 3, "train": 0}}
runner = study_jobs.Runner(root, Reporter(), Deadline(), Processes(1), left, 3)
try:
    runner.run(jobs)
except Stopped as stop:
    assert stop.status == 143 and runner.started == 1, (stop, runner)
    sys.exit(0)
sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


def test_time_that_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runner = study_jobs.Runner(tmp_path, Reporter(quiet=True), Deadline(), Processes(2), {"search": 0, "train": 10}, 20)
    assert runner._time_left() == ""
    runner.times["train"] = [20.0, 40.0]
    assert runner._time_left() == "; about 2 min left"  # 10 · 30 s on two processes
    for place in (None, runner.place):
        late = dataclasses.replace(runner, deadline=Deadline(0.0), place=place)
        with pytest.raises(Stopped, match="the time is up"):
            late.run([study_jobs.Job("searches/a/seed0", "search a", config_of())])


# --- the plan -------------------------------------------------------------------------------------------------------


def test_variants() -> None:
    config = config_of(TWO_STAGES)
    found = {v.key: v for v in plan_variants(config, ["dasvit", "darts"], ablate=True, sweep=True)}
    search = {key: variant.config.search for key, variant in found.items()}
    assert search["without-token-selection"].tokens.ratio == 1 and search["without-stages"].tokens.ratio == 0.5
    assert search["without-fairness"].fairness.skip == search["without-fairness"].fairness.types == 0
    assert search["without-stages"].stages.layers == [1] and search["without-stages"].stages.epochs == [3]
    assert search["lambda-4"].fairness.types == 4 and search["rho-0.25"].tokens.ratio == 0.25
    assert all(section.monitor == 1000 for section in search.values())
    # What comes to the same recipe is searched once: λ = 1 and ρ = 0.5 are the recipe's, the others the ablation's.
    assert not {"lambda-1", "rho-0.5", "lambda-0", "rho-1"} & set(found)
    labels = [v.label for v in plan_variants(config, ["dasvit"], ablate=False, sweep=True)]
    assert labels == ["dasvit", "λ = 0", "λ = 0.25", "λ = 1", "λ = 4", "ρ = 0.25", "ρ = 0.5", "ρ = 0.75", "ρ = 1"]


def test_the_control_is_the_first_methods_finals_without_what_they_learn_by() -> None:
    config = config_of(*(f"--search.finals.{name}" for name in ("cells=6", "rungs=[0.5,2]", "keep=0.3", "images=30")))
    method = plan_variants(config, ["dasvit"], False, False)[0].config
    control = plan_control(method, 30)
    search = control.config.search
    assert (search.method, control.label, control.group) == ("finals", "best of 6 drawn evenly", "control")
    assert search.finals == dataclasses.replace(method.search.finals, learn=False, shipped=False)
    assert search.derive == method.search.derive
    towards = config_of("--search.target_macs=30k", "--search.derive.rule=perturbation")
    search = plan_control(plan_variants(towards, ["dasvit"], False, False)[0].config, 30).config.search
    assert search.target_macs == 0 and search.derive.rule == "darts"
    nothing = plan_variants(config_of(), ["random"], False, False)[0].config
    assert plan_control(nothing, 30).config.search.finals.cells == 1


def test_images_are_counted_step_by_step() -> None:
    """First order: as many for alpha as for the weights; second: four times. Halves as the split makes them."""
    two = config_of(TWO_STAGES)
    assert planned_images(two, 30) == 3 * 30 + 2 * 30 and planned_images(two, 39) == 150  # whole batches alone
    assert planned_images(config_of(TWO_STAGES, "--search.order=2"), 30) == 3 * 30 + 2 * 4 * 30
    given = ("cells=4", "rungs=[0.5,1,3]")
    finals = config_of(TWO_STAGES, *(f"--search.finals.{name}" for name in given))
    assert planned_images(finals, 30) == 150 + (4 * 0.5 + 2 * 0.5 + 1 * 2) * 20  # batches of 20
    assert planned_images(with_method(finals, "evolution"), 30) == 3 * 30
    assert planned_images(with_method(finals, "finals"), 30) == 100
    for count, fraction in ((60, 0.5), (61, 0.5), (97, 0.3)):
        config = config_of(f"--search.val_fraction={fraction}")
        half = len(split_indices(np.arange(count) % 3, fraction, 0)[0])
        assert images_for_weights(config, count) == half


def test_trainings_have_seeds_of_their_own() -> None:
    check_seeds(config_of(), 1000, 5)
    with pytest.raises(UserError, match="at most 1000 searches"):
        check_seeds(config_of(), 1001, 1)
    with pytest.raises(UserError, match=r"lower runtime\.seed"):
        check_seeds(config_of("--runtime.seed=4294967000"), 4, 3)


def test_an_ablation_of_what_is_not_there_is_left_out() -> None:
    one = config_of("--search.tokens.ratio=1")
    assert [v.label for v in plan_variants(one, ["dasvit"], True, False)] == ["dasvit", "without fairness"]


@pytest.mark.parametrize(
    ("methods", "ablate", "message"),
    [
        ([], False, "takes each method once"),
        (["darts", "darts"], False, "takes each method once"),
        (["dart"], False, "Did you mean 'darts'"),
        (["darts"], True, "name it among --methods"),
    ],
)
def test_mistakes_in_the_plan(methods: Sequence[str], ablate: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_variants(config_of(), list(methods), ablate, False)


def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    status, _, err = call_cli("study", *SMALL, "--random=0", "--run", tmp_path / "s")
    assert status == 2 and "--random must be at least 1" in err and not (tmp_path / "s").exists()
    status, _, err = call_cli("study", *SMALL, "--resume", "--run", tmp_path / "s")
    assert status == 2 and "there is no run" in err


def test_draws_are_uniform_distinct_and_repeatable() -> None:
    config = parse("study", ["--config=digits-study"])[1]
    assert config is not None
    drawn = draw_cells(config, 10, [4_000_000, 4_400_000], 30)
    assert drawn == draw_cells(config, 10, [4_400_000, 4_000_000], 30) and drawn.macs == 4.2e6
    assert len(set(drawn.cells)) == 30 and all(map(is_viable, drawn.cells))
    for cell in drawn.cells:
        assert sum(op != "zero" for op in cell.ops) == 4  # two edges into each node
        assert abs(cost_of(cell, config.model, 10).macs / 4.2e6 - 1) <= drawn.tolerance + 1e-6
    assert drawn.tolerance == 0.05
    first = draw_cells(config, 10, [4_200_000], 5)
    assert first.cells == drawn.cells[:5]  # more of them may join later


def test_a_budget_that_too_few_cells_have_is_widened() -> None:
    config = config_of()  # one attention, one MLP
    one = draw_cells(config, 10, [40_000], 4)  # the largest has 30,720
    assert one.tolerance == 0.4 and len(one.cells) == 4
    with pytest.raises(UserError, match="lower --random"):
        draw_cells(config, 10, [40_000], 5000)


# --- the supernet's ranking -----------------------------------------------------------------------------------------


def test_a_cell_alone_is_the_derived_network_on_shared_weights() -> None:
    """The same logits as the derived network that takes over the supernet's weights."""
    from dasvit.models.baselines import make_network

    config = config_of("--model.width=16", "--model.layers=2", "--search.tokens.ratio=1")
    space = Space.from_config(config.space)
    sizes: dict[str, Any] = {"image_size": 8, "patch_size": 2, "dim": 16, "layers": 2, "num_classes": 10}
    supernet = Supernet(space, space.everything(), tokens=config.search.tokens, **sizes)
    cell = Genotype.from_ops(2, ["mlp_1", "msa_2", "zero", "identity", "mlp_1"])
    network = make_network(cell, config.model, 10).eval()
    network.load_state_dict(supernet.state_of(cell))
    images, seen = torch.randn(3, 3, 8, 8), []
    supernet.eval()

    def top1(model: Supernet, weights: torch.Tensor, mode: ForwardMode) -> float:
        assert mode.active == [space.operations.index(op) for op in cell.ops]
        seen.append(model(images, weights, mode))
        return 12.5

    with torch.no_grad():
        assert evaluate_cell(supernet, cell, top1) == 12.5
        torch.testing.assert_close(seen[0], network(images))


def test_scores_are_those_of_the_kept_supernet(study: tuple[Path, dict[str, Any]]) -> None:
    root, content = study
    search = next(s for s in content["searches"] if s["variant"] == "dasvit")
    config = plan_variants(config_of(TWO_STAGES), ["dasvit"], False, False)[0].config
    space = Space.from_config(config.space)
    assert sorted(p.name for p in (root / search["run"] / "supernets").iterdir()) == [
        "stage1.safetensors",
        "stage2.safetensors",
    ]
    kept = kept_supernet(root / search["run"], space)
    assert kept is not None and (kept.stage, kept.layers, kept.alive) == (1, 1, space.everything())
    data = load_data(config.data, 8, 0)
    keys = list(search["ranking"]["supernet_top1"])
    cells = [load_genotype(root / "cells" / f"{key}.json") for key in keys]
    scores = supernet_scores(config, data, root / search["run"], cells, Runtime(config.runtime, "float32"))
    assert scores == (1, 1, [search["ranking"]["supernet_top1"][key] for key in keys])
    assert supernet_scores(config, data, root, cells, Runtime(config.runtime, "float32")) is None


def test_a_search_that_is_looked_at_ends_as_one_that_is_not(study: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    root, content = study
    status, _, err = call_cli("search", *SMALL, TWO_STAGES, "--run", tmp_path / "s")
    assert status == 0, err
    run = root / content["searches"][0]["run"]
    lines = [
        [json.loads(line) for line in (f / "architecture.jsonl").read_text().splitlines()]
        for f in (run, tmp_path / "s")
    ]
    assert all("monitor" in line for line in lines[0]) and not any("monitor" in line for line in lines[1])
    assert [line["weights"] for line in lines[0]] == [line["weights"] for line in lines[1]]
    assert not (tmp_path / "s" / "supernets").exists()


def test_a_damaged_supernet_is_named(study: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "supernets").mkdir()
    (tmp_path / "supernets" / "stage1.safetensors").write_bytes(random.Random(0).randbytes(500))
    with pytest.raises(UserError, match=r"stage1\.safetensors is damaged"):
        kept_supernet(tmp_path, Space.from_config(config_of().space))


def test_weights_rank_as_derivation_does() -> None:
    space = Space(1, ("zero", "identity", "msa_2"))
    weights = [[0.5, 0.2, 0.3], [0.6, 0.1, 0.3]]
    cells = [Genotype.from_ops(1, ops) for ops in (["msa_2", "zero"], ["identity", "msa_2"])]
    stages = [StageWeights(weights, space.everything())]
    darts = weight_scores(stages, space, "darts", cells)
    assert [pytest.approx(v) for v in darts] == [torch.tensor(0.3).log().item(), torch.tensor(0.06).log().item()]
    strongest = weight_scores(stages, space, "strongest", cells)
    assert strongest[0] == pytest.approx(torch.tensor(0.18).log().item())


def test_the_shipped_cell_is_a_reference_where_it_is_of_the_space() -> None:
    space = ("--space.heads=[2,4]", "--space.ratios=[1]", "--space.shifts=[0.5,1,2]", "--model.width=8")
    everything = ("--space.heads=[2,4,8]", "--space.ratios=[0.5,1,2]", *space[2:])
    assert set(reference_cells(config_of(*everything))) == {"published", "shipped"}
    assert set(reference_cells(config_of("--space.shifts=[]"))) == {"published"}
    config = config_of(*everything)
    config.model.width = 6
    assert "shipped" not in reference_cells(config)


def test_sizes_that_a_baseline_has_not_are_refused_before_the_searches(tmp_path: Path) -> None:
    status, _, err = call_cli("study", *STUDY, "--model.stem=conv", "--run", tmp_path / "run")
    assert status == 2 and "vit_shift has no convolutional stem" in err and not (tmp_path / "run").exists()
