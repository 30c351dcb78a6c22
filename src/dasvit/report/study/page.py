"""A study's page, and the same tables as Markdown; every number stands beside the run folder that it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dasvit.cell.genotype import Genotype
from dasvit.cell.graph import live_edges
from dasvit.report.drawing.charts import Chart, Series, limited
from dasvit.report.drawing.dot_plots import Cloud, Row, Scatter, strips
from dasvit.report.drawing.palette import DASHES, LINES
from dasvit.report.run.page import Tile
from dasvit.report.tables import number
from dasvit.report.words import duration, memory, percent, weight

Study = Mapping[str, Any]
MISSING = "–"
MONITORED: list[tuple[str, str, Callable[[float], str], str]] = [
    ("identity", "Weight of identity", weight, "Averaged over the edges."),
    ("zero", "Weight of zero", weight, "Averaged over the edges."),
    ("entropy", "Entropy of an edge's weights, of the largest", weight, "1: undecided. Averaged over the edges."),
    ("mixture_top1", "Supernet as a mixture, top-1", percent, "On validation images, after the epoch."),
    ("derived_top1", "Supernet as the derived cell alone, top-1", percent, "Shared weights, one operation an edge."),
    ("gap", "Gap between the two, points", weight, "What is lost where the mixture becomes a cell."),
]
"""Key in an epoch's row, title, how values are written, note."""


def page_of(study: Study) -> dict[str, Any]:
    """Return what the template is given."""
    summary = study["summary"]
    colours = {key: (line(i), dashes(i)) for i, key in enumerate(unique_keys(study))}
    methods = [row for row in summary["variants"] if row["group"] == "methods"]
    return {
        "title": study["name"],
        "study": study,
        "operations": {},
        "verdicts": summary["verdicts"],
        "tiles": tiles(study, methods),
        "status": status_of(study),
        "accuracy": accuracy_strips(study, methods, colours),
        "dots": dot_words(study),
        "table": result_table(study, methods),
        "against": against_table(study, methods),
        "against_heads": AGAINST_HEADS,
        "searches": search_table(study, [row["key"] for row in methods]),
        "others": search_table(study, other_keys(study)),
        "references": reference_table(study),
        "luck": luck_table(study),
        "tolerance": tolerance(study),
        "scatters": scatters(study, colours),
        "ranking": ranking_table(study),
        "legend": [(key, *colours[key]) for key in dict.fromkeys(row["key"] for row in methods)],
        "charts": collapse_charts(study, [row["key"] for row in methods], colours),
        "collapse": collapse_table(methods),
        "changed": [(title, table) for group, title in CHANGED.items() if (table := ablation_table(summary, group))],
        "ranking_heads": RANKING_HEADS,
        "collapse_heads": COLLAPSE_HEADS,
        "ablation_heads": ABLATION_HEADS,
    }


CHANGED = {"ablation": "Without one of its parts", "lambda": "Sweep of λ (both alike)", "rho": "Sweep of ρ"}
"""Groups of variants that change something of DASViT."""


def line(i: int) -> str:
    """Return the colour class of the i-th method."""
    return f"line-{i % len(LINES['light'])}"


def dashes(i: int) -> str:
    """Return the dashes of the i-th method."""
    return DASHES[(i + i // len(LINES["light"])) % len(DASHES)]


def unique_keys(study: Study) -> list[str]:
    """Return the keys of everything that was searched with."""
    return list(dict.fromkeys(variant["key"] for variant in study["variants"]))


def other_keys(study: Study) -> list[str]:
    """Return the keys of ablations and sweeps that no method has."""
    methods = {variant["key"] for variant in study["variants"] if variant["group"] == "methods"}
    return [key for key in unique_keys(study) if key not in methods]


def status_of(study: Study) -> str:
    """Return how much of the study is there, in a sentence."""
    options = study["options"]
    searches, wanted = len(study["searches"]), len(unique_keys(study)) * options["searches"]
    trained = sum(len(cell["trainings"]) for cell in study["cells"].values())
    of = len(study["cells"]) * options["trainings"]
    if searches == wanted and trained == of and study["random"]["cells"]:
        return f"Complete: {searches} searches, {trained} trainings of {len(study['cells'])} networks."
    more = "" if study["random"]["cells"] else " known so far"
    return f"So far {searches} of {wanted} searches, {trained} of {of} trainings{more}."


def mean_sd(numbers: Mapping[str, Any]) -> str:
    """Return a mean with its standard deviation, in percent."""
    if numbers["mean"] is None:
        return MISSING
    return f"{numbers['mean']:.2f}" + (f" ± {numbers['sd']:.2f}" if numbers["sd"] is not None else "") + " %"


def with_interval(value: float | None, low: float | None, high: float | None, form: str = ".2f") -> str:
    """Return a value with its 95 % interval."""
    if value is None:
        return MISSING
    return f"{value:{form}}" + (f" ({low:{form}} to {high:{form}})" if low is not None and high is not None else "")


def tiles(study: Study, methods: Sequence[Mapping[str, Any]]) -> list[Tile]:
    """Return the figures at the top, all of the first method."""
    first, luck = methods[0], study["summary"]["random"]
    found = []
    if first["mean"] is not None:
        found.append(Tile(f"{first['label']}, test top-1", percent(first["mean"]), _over(first, "searches")))
    if luck["mean"] is not None:
        found.append(Tile("random cells", percent(luck["mean"]), _over(luck, "cells")))
    if first["percentile"] is not None:
        found.append(Tile("percentile", f"{first['percentile']:.0f}", "of random cells beaten, in percent"))
    if first["improvement"] and first["improvement"]["ri"] is not None:
        ri = first["improvement"]
        interval = "" if ri["low"] is None else f"95 %: {ri['low']:+.2f} to {ri['high']:+.2f}"
        found.append(Tile("relative improvement", f"{ri['ri']:+.2f} %", interval))
    if first["test"]:
        found.append(
            Tile("p (permutation)", f"{first['test']['p']:.3g}", f"smallest possible {first['test']['least']:.2g}")
        )
    taus = [row["supernet"]["tau"] for row in study["summary"]["ranking"] if row["variant"] == first["key"]]
    known = [tau for tau in taus if tau is not None]
    if known:
        found.append(Tile("Kendall's τ", f"{sum(known) / len(known):.2f}", f"mean of {len(known)} supernets"))
    return found


def _over(numbers: Mapping[str, Any], what: str) -> str:
    spread = f"± {numbers['sd']:.2f} over" if numbers["sd"] is not None else "from"
    return f"{spread} {numbers['n']} {what}"


def accuracy_strips(study: Study, methods: Sequence[Mapping[str, Any]], colours: Mapping[str, tuple[str, str]]) -> Any:
    """Return the picture of all accuracies on one axis, or None where nothing was trained."""
    cells, rows = study["cells"], []
    for row in methods:
        searches = [search for search in study["searches"] if search["variant"] == row["key"]]
        values = [(f"seed {search['seed']}", cells[search["cell"]]["top1"]) for search in searches]
        rows.append(Row(f"{row['label']}: a dot a search", values, colours[row["key"]][0], mean_sd(row)))
    luck = [(cell_words(cells[key]), cells[key]["top1"]) for key in study["random"]["cells"]]
    rows.append(Row("random cells: a dot a cell", luck, "luck", mean_sd(study["summary"]["random"])))
    for name, title in {"vit": "ViT", "published": "published cell"}.items():
        if study[name]:
            values = [(f"seed {t['seed']}", t["top1"]) for t in cells[study[name]]["trainings"]]
            rows.append(Row(f"{title}: a dot a training", values, "luck", mean_sd(study["summary"][name])))
    rows = [Row(r.name, [v for v in r.values if v[1] is not None], r.css, r.remark) for r in rows]
    rows = [row for row in rows if row.values]
    return strips(rows, "Test top-1 of found cells, random cells and references", percent) if rows else None


def dot_words(study: Study) -> str:
    """Return what the dot of a found or random cell is: of how many trainings so far."""
    keys = [*(search["cell"] for search in study["searches"]), *study["random"]["cells"]]
    counts = sorted({len(study["cells"][key]["trainings"]) for key in keys} - {0})
    if counts in ([], [1]):
        return "its one training"
    return f"the mean of its {' or '.join(map(str, counts))} trainings"


def cell_words(cell: Mapping[str, Any]) -> str:
    """Return a network as a formula, as x1 = msa_2(prev2) + mlp_1(prev1)."""
    if not cell["genotype"]:
        return "ViT"
    genotype = Genotype.from_dict(cell["genotype"])
    nodes: dict[str, list[str]] = {}
    for i in live_edges(genotype):
        edge = genotype.edges[i]
        nodes.setdefault(edge.target, []).append(f"{edge.op}({edge.source})")
    return "; ".join(f"{target} = {' + '.join(parts)}" for target, parts in nodes.items())


RESULT_HEADS = ["", "top-1", "sd of trainings", "multiply-adds", "percentile", "RI, %", "p"]


def result_table(study: Study, methods: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return heads and rows of what the methods found, beside luck and references."""
    summary = study["summary"]
    rows = [result_row(row) for row in methods]
    blank = [MISSING] * (len(RESULT_HEADS) - 4)
    luck = summary["random"]
    if luck["mean"] is not None:
        rows.append([f"{luck['n']} random cells", mean_sd(luck), MISSING, number(round(luck["macs"])), *blank])
    for name, title in {"vit": "ViT (sd over trainings)", "published": "published cell (likewise)"}.items():
        if study[name]:
            of = summary[name]
            rows.append([title, mean_sd(of), MISSING, number(of["macs"]), *blank])
    return RESULT_HEADS, rows


AGAINST_HEADS = ["", "against", "difference, points", "pairs won"]


def against_table(study: Study, methods: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return how the methods' cells differ from ViT and the published cell."""
    rows = []
    for row in methods:
        for name, title in {"vit": "ViT", "published": "published cell"}.items():
            if over := row[f"over_{name}"]:
                points = with_interval(over["mean"], over["low"], over["high"], "+.2f")
                rows.append([row["label"], title, points, f"{over['wins']} of {over['pairs']}"])
    return rows


def result_row(row: Mapping[str, Any]) -> list[str]:
    """Return a method's row of the table of results."""
    ri, test = row["improvement"], row["test"]
    return [
        row["label"],
        mean_sd(row),
        f"{row['training_sd']:.2f}" if row["training_sd"] is not None else MISSING,
        number(round(row["macs"])) if row["macs"] else MISSING,
        f"{row['percentile']:.0f}" if row["percentile"] is not None else MISSING,
        with_interval(ri["ri"], ri["low"], ri["high"], "+.2f") if ri else MISSING,
        f"{test['p']:.3g}" if test else MISSING,
    ]


def search_table(study: Study, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Return the searches of some methods: links to their runs and to the trainings of their cells."""
    return [
        {
            "name": f"{search['variant']}, seed {search['seed']}",
            "run": search["run"],
            "words": cell_words(study["cells"][search["cell"]]),
            "top1": percent(top1) if (top1 := study["cells"][search["cell"]]["top1"]) is not None else MISSING,
            "trainings": links(study["cells"][search["cell"]]),
            "macs": number(study["cells"][search["cell"]]["macs"]),
            "took": duration(search["seconds"]) if search["seconds"] else MISSING,
        }
        for key in keys
        for search in study["searches"]
        if search["variant"] == key
    ]


def links(cell: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the accuracy and run folder of every training."""
    return [(percent(training["top1"]), training["run"]) for training in cell["trainings"]]


def luck_table(study: Study) -> list[dict[str, Any]]:
    """Return the random cells, the best first."""
    cells = [study["cells"][key] for key in study["random"]["cells"]]
    return [described(cell) for cell in sorted(cells, key=lambda cell: -(cell["top1"] or 0.0))]


def reference_table(study: Study) -> list[dict[str, Any]]:
    """Return ViT and the published cell with their trainings."""
    titles = {"vit": "ViT", "published": "the paper's CIFAR-10 cell"}
    return [{**described(study["cells"][study[name]]), "name": t} for name, t in titles.items() if study[name]]


def described(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a network as the tables show it."""
    top1 = percent(cell["top1"]) if cell["top1"] is not None else MISSING
    return {"words": cell_words(cell), "top1": top1, "macs": number(cell["macs"]), "trainings": links(cell)}


def tolerance(study: Study) -> str:
    """Return the random cells' budget in words."""
    luck = study["random"]
    if not luck["cells"]:
        return ""
    return f"{number(round(luck['macs']))} multiply-adds ± {100 * luck['tolerance']:g} %"


def scatters(study: Study, colours: Mapping[str, tuple[str, str]]) -> list[Scatter]:
    """Return, for every search of a method, its supernet's accuracy of each cell against the cell's own."""
    lucky, drawn, others = set(study["random"]["cells"]), [], other_keys(study)
    tables = {row["run"]: row for row in study["summary"]["ranking"]}
    for search in study["searches"]:
        if search["run"] not in tables or search["variant"] in others:
            continue
        of = tables[search["run"]]
        points: dict[bool, list[tuple[str, float, float]]] = {True: [], False: []}
        for key, score in search["ranking"]["supernet_top1"].items():
            alone = (study["cells"].get(key) or {}).get("top1")
            if alone is not None:
                points[key in lucky].append((cell_words(study["cells"][key]), score, alone))
        clouds = [Cloud("random", points[True], "luck"), Cloud("found", points[False], colours[search["variant"]][0])]
        tau = with_interval(of["supernet"]["tau"], of["supernet"]["low"], of["supernet"]["high"])
        if any(cloud.points for cloud in clouds):
            title = f"{search['variant']}, seed {search['seed']}"
            note = f"τ = {tau}."
            axes = ("on the supernet's weights, validation top-1", "trained alone, test top-1")
            drawn.append(Scatter(title, clouds, axes, (percent, percent), note))
    return drawn


RANKING_HEADS = ["search", "cells", "supernet", "τ, supernet", "top 5", "τ, weights", "top 5", "top 5 by luck"]


def ranking_table(study: Study) -> list[tuple[str, list[str]]]:
    """Return each search's run and row of the table of rankings."""
    rows = []
    for row in study["summary"]["ranking"]:
        texts = [f"{row['variant']}, seed {row['seed']}", str(row["cells"])]
        texts.append(f"stage {row['stage']}, {row['layers']} layer{'s' if row['layers'] > 1 else ''}")
        for name in ("supernet", "weights"):
            of = row[name]
            texts.append(with_interval(of["tau"], of["low"], of["high"]))
            texts.append(MISSING if of["precision"] is None else f"{of['precision']:.2f}")
        texts.append(MISSING if row["chance"] is None else f"{row['chance']:.2f}")
        rows.append((row["run"], texts))
    return rows


def collapse_charts(study: Study, keys: Sequence[str], colours: Mapping[str, tuple[str, str]]) -> list[Chart]:
    """Return the monitor's charts, a line a search."""
    searches = [search for key in keys for search in study["searches"] if search["variant"] == key and search["epochs"]]
    charts = []
    for name, title, show, note in MONITORED:
        series = []
        for search in searches:
            points = [(row["epoch"], row[name]) for row in search["epochs"] if row[name] is not None]
            stages = {row["stage"]: row["epoch"] for row in reversed(search["epochs"])}
            css, dash = colours[search["variant"]]
            label = f"{search['variant']}, seed {search['seed']}"
            series.append(Series(label, points, css, dash, breaks=list(stages.values())))
        series = [one for one in series if one.points]
        if series:
            epochs = max(point[0] for one in series for point in one.points)
            charts.append(Chart(title, series, show, epochs, zero=name != "gap", labels=False, note=note))
    return limited(charts, sum(len(chart.series) for chart in charts))


COLLAPSE_HEADS = ["method", "searches", "collapsed", "rate, %", "no attention", "skips", "gap at the end, points"]


def collapse_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return how many searches of every method ended collapsed."""
    found = []
    for row in rows:
        of, gap = row["collapse"], row["gap"]
        share, low, high = (None if of[name] is None else 100 * of[name] for name in ("share", "low", "high"))
        texts = [row["label"], str(of["n"]), str(of["count"]), with_interval(share, low, high, ".0f")]
        texts += [str(row["reasons"][why]) for why in ("no attention", "skips")]
        spread = f" ± {gap['sd']:.1f}" if gap["sd"] is not None else ""
        found.append([*texts, MISSING if gap["mean"] is None else f"{gap['mean']:.1f}{spread}"])
    return found


ABLATION_HEADS = [
    "variant",
    "top-1",
    "multiply-adds",
    "different cells",
    "percentile",
    "RI, %",
    "p",
    "collapsed",
    "a search",
    "memory",
]


def ablation_table(summary: Mapping[str, Any], group: str) -> list[list[str]]:
    """Return the rows of an ablation or a sweep, behind that of DASViT as it is."""
    rows = [row for row in summary["variants"] if row["group"] == group]
    whole = [row for row in summary["variants"] if row["group"] == "methods" and row["key"] == "dasvit"]
    found = []
    for row in [*whole, *rows] if rows else []:
        texts = result_row(row)
        collapsed = f"{row['collapse']['count']} of {row['collapse']['n']}"
        took = duration(row["seconds"]) if row["seconds"] else MISSING
        held = memory(row["peak_memory_mib"]) if row["peak_memory_mib"] else MISSING
        found.append([row["label"], texts[1], texts[3], str(row["cells"]), *texts[4:], collapsed, took, held])
    return found


def as_markdown(study: Study) -> str:
    """Return the page's tables as Markdown."""
    summary = study["summary"]
    methods = [row for row in summary["variants"] if row["group"] == "methods"]
    parts = [f"# Study {study['name']}\n", status_of(study), *(f"- {text}" for text in summary["verdicts"])]
    heads, rows = result_table(study, methods)
    parts += ["\n## Results\n", markdown_table(heads, rows)]
    if against := against_table(study, methods):
        parts += ["", markdown_table(AGAINST_HEADS, against)]
    for title, keys in {"Searches": [row["key"] for row in methods], "Other searches": other_keys(study)}.items():
        searches = search_table(study, keys)
        if searches:
            parts += [f"\n## {title}\n", markdown_table(["search", *TRAINED], [_search_row(row) for row in searches])]
    trained = [
        [row.get("name") or row["words"], *_trained(row)] for row in [*reference_table(study), *luck_table(study)]
    ]
    parts += [f"\n## References and random cells ({tolerance(study) or 'none yet'})\n"]
    parts += [markdown_table(["network", *TRAINED[1:]], trained)]
    if summary["ranking"]:
        rows = [[f"[{texts[0]}]({run})", *texts[1:]] for run, texts in ranking_table(study)]
        parts += ["\n## The supernet's ranking\n", markdown_table(RANKING_HEADS, rows)]
    parts += ["\n## Collapse\n", markdown_table(COLLAPSE_HEADS, collapse_table(methods))]
    for group, title in CHANGED.items():
        if table := ablation_table(summary, group):
            parts += [f"\n## {title}\n", markdown_table(ABLATION_HEADS, table)]
    return "\n".join(parts) + "\n\nWhat each figure means: docs/study.md of dasvit.\n"


TRAINED = ["cell", "top-1", "multiply-adds", "trainings"]


def _search_row(row: Mapping[str, Any]) -> list[str]:
    return [f"[{row['name']}]({row['run']})", row["words"], *_trained(row)]


def _trained(row: Mapping[str, Any]) -> list[str]:
    return [row["top1"], row["macs"], ", ".join(f"[{text}]({run})" for text, run in row["trainings"]) or MISSING]


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as Markdown."""
    lines = [heads, ["---"] * len(heads), *([text.replace("|", "\\|") for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
