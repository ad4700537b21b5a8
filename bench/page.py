"""The page of a run's results, in Markdown."""
from harness import CALL, CARELESS, CAREFUL, OBAN_PYTHON, PLPGSQL

QUICK = ("**These results are of `--quick`: they show that the benchmark works, and say nothing"
         " about speed.**")
FAILED = ("**This run has failed. What is below was measured before or besides; what is missing was"
          " not measured:**")
HOW = """\
A ratio is one of medians of sides that took turns in one run; below 1, the extension is faster. In
brackets stand the quartiles of the ratio in the single rounds. Times of single runs say little."""
# Columns of a verb's table: what the call is compared with.
AGAINST = (("careless", CARELESS), ("careful", CAREFUL), ("PL/pgSQL", PLPGSQL))
COMMITTED = ", committed"   # at the end of a name: the same, but not rolled back
TITLES = {
    "verbs": "The verbs by id", "filters": "The verbs by filter",
    "callables": "Updates with a callable", "triggers": "Triggers", "batches": "Batches",
    "guard": "The guard beside workers", "refused": "Batches that pass over refused jobs",
    "rename": "Batches with a callable", "sparse": "Batches by a filter that matches few jobs",
    "throughput": "Throughput, and workers beside", "costs": "Memory, WAL and first calls",
    "peers": "Other job queues in PostgreSQL"}
# Sections in which a count is not one of jobs.
COUNTS = {"throughput": "clients"}


def number(value):
    """To three digits."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"


def ratio_text(value, digits=2):
    """Of most ratios more digits would be noise."""
    return number(value) if value < 0.1 or value >= 10 else f"{value:.{digits}f}"


def grid(head, rows, left=(0,)):
    """A table; the columns that are named are text, the others are numbers."""
    rule = ["---" if i in left else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)) + "\n"


def median(one, side):
    return one["sides"][side]["median"]


def of_aims(aims, quick):
    """With a verdict, but not for what says nothing about speed."""
    rows = []
    for aim in aims:
        bound = "at least" if aim["at_least"] else "at most"
        first = [aim["aim"], f"{bound} {aim['limit']:g}{aim['unit']}"]
        if not aim["cells"]:
            rows.append([*first, "", "", "", "", "not measured"])
            continue
        typical, worst = (ratio_text(aim[key], aim["digits"]) + aim["unit"]
                          for key in ("typical", "worst"))
        remark = f"; {aim['remark']}" if "remark" in aim else ""
        verdict = "–" if quick else "**met**" if aim["met"] else "**not met**"
        rows.append([*first, f"{aim['good']} of {aim['cells']}", typical, worst,
                     aim["worst_cell"] + remark, verdict])
    head = ["aim", "limit", "cells that meet it", "typical", "worst", "where it is worst", ""]
    return grid(head, rows, (0, 5, 6))


def of_machine(machine):
    settings = ", ".join(f"`{name} = {value}`" for name, value in machine["settings"].items())
    lines = [
        f"{machine['date']}, revision {machine['revision']}",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB of memory",
        f"{machine['system']}, {machine['kernel']}",
        f"PostgreSQL {machine['postgresql']}; {settings}",
        f"{machine['compiler']}; `{machine['flags']}`",
        f"Python {machine['python']}, node {machine['node'] or 'none'}"]
    return "".join(f"- {line}\n" for line in lines)


def slashed(cells, shown):
    """What is shown of each cell, of tables of different sizes."""
    if not any(cells):
        return ""
    return " / ".join("–" if cell is None else shown(cell) for cell in cells)


def against(theirs, power):
    """Shows the call's ratio to that side, bold where an aim is missed."""
    def shown(cell):
        if theirs not in cell["sides"]:
            return "–"
        text = ratio_text((median(cell, CALL) / median(cell, theirs)) ** power)
        missed = any(not ratio.get("met", True) for ratio in cell["ratios"]
                     if {theirs, CALL} == {ratio["ours"], ratio["theirs"]})
        return f"**{text}**" if missed else text
    return shown


def of_verbs(measurements):
    """A table for each verb and dialect, a cell for each size of table."""
    sizes = sorted({one["size"] for one in measurements})
    text = ("Times and ratios of the call. In a cell: on a table of "
            + ", of ".join(f"{size:,}" for size in sizes)
            + " jobs. Bold: beyond what is aimed at. What stands against Oban for Python is"
              " committed; the other sets of ids are rolled back.\n\n")
    names = dict.fromkeys((one["name"].removesuffix(COMMITTED), one["dialect"])
                          for one in measurements)
    for name, dialect in names:
        text += f"### {name}, {dialect}\n\n" + of_verb(
            [one for one in measurements if one["dialect"] == dialect
             and one["name"] in (name, name + COMMITTED)], sizes) + "\n"
    return text + of_notes(measurements)


def of_verb(measurements, sizes):
    """The rows are numbers of jobs; committed calls are another measurement of the same."""
    rows = []
    for count in sorted({one["count"] for one in measurements}):
        row = [{one["name"].endswith(COMMITTED): one for one in measurements
                if (one["count"], one["size"]) == (count, size)} for size in sizes]
        plain, committed = ([cell.get(which) for cell in row] for which in (False, True))
        rows.append([
            f"{count:,}", slashed(plain, lambda cell: number(median(cell, CALL))),
            *(slashed(plain, against(side, 1)) for _, side in AGAINST),
            slashed(committed, lambda cell: number(median(cell, CALL))),
            slashed(committed, against(OBAN_PYTHON, -1))])
    return grid(["jobs", "ms", *(f"to {title}" for title, _ in AGAINST), "ms, committed",
                 "times as fast as Oban for Python"], rows)


def of_others(section, measurements):
    """A table for each kind of comparison: those of the same sides."""
    text = ""
    kinds = dict.fromkeys((tuple(one["sides"]), tuple((ratio["ours"], ratio["theirs"])
                                                      for ratio in one["ratios"]))
                          for one in measurements)
    for sides, pairs in kinds:
        some = [one for one in measurements if tuple(one["sides"]) == sides
                and tuple((ratio["ours"], ratio["theirs"]) for ratio in one["ratios"]) == pairs]
        rows = [[one["name"], table_of(one), f"{one['count']:,}" if one["count"] else "",
                 *(f"{number(median(one, side))} {one['unit']}" for side in sides),
                 *(of_ratio(ratio) for ratio in one["ratios"])] for one in some]
        text += grid(["", "table", COUNTS.get(section, "jobs"), *sides,
                      *(f"{ours} / {theirs}" for ours, theirs in pairs)], rows, (0, 1)) + "\n"
        text += of_notes(some)
    return text


def table_of(one):
    return f"{one['dialect']}, {one['size']:,}" if one["size"] else one["dialect"]


def of_ratio(ratio):
    """The ratio, how it spreads, and its aim where it has one."""
    digits = 3 if ratio.get("by_rounds") else 2
    text = ratio_text(ratio["ratio"], digits)
    if not ratio.get("met", True):
        text = f"**{text}**"
    if "low" in ratio:
        text += f" ({ratio_text(ratio['low'], digits)}–{ratio_text(ratio['high'], digits)})"
    if "aim" in ratio:
        text += f", aim {'≥' if ratio['at_least'] else '≤'} {ratio['aim']:.3g}"
    return text


def of_notes(measurements):
    notes = dict.fromkeys(one["note"] for one in measurements if one["note"])
    return "".join(f"{note}\n\n" for note in notes)


def of_section(name, measurements, seconds, drawn):
    """Everything of one section: its plots, then its tables."""
    text = f"## {TITLES.get(name, name)}\n\n"
    text += "".join(f"![{title}]({file})\n\n" for section, file, title in drawn if section == name)
    text += of_verbs(measurements) if name == "verbs" else of_others(name, measurements)
    return text + f"`{name}` took {seconds:.0f} s.\n\n"


def page(results, drawn):
    """The whole page; drawn are the plots: (section, file, title)."""
    text = "# Results of the benchmark\n\n"
    if results["quick"]:
        text += QUICK + "\n\n"
    if results["failures"]:
        text += FAILED + "\n\n"
        text += "".join(f"```\n{failure.strip()}\n```\n\n" for failure in results["failures"])
    text += ("`bench/run` has written this page; [its README](../README.md) tells what is measured"
             " and how.\n\n" + of_machine(results["machine"]) + f"\n{HOW}\n\n")
    text += "## What was aimed at\n\n" + of_aims(results["aims"], results["quick"]) + "\n"
    for name in dict.fromkeys(one["section"] for one in results["measurements"]):
        some = [one for one in results["measurements"] if one["section"] == name]
        text += of_section(name, some, results["seconds"].get(name, 0), drawn)
    total = sum(results["seconds"].values())
    return text + (f"The whole run took {total / 60:.1f} minutes,"
                   f" {results['seconds']['loading'] / 60:.1f} of them to load tables.\n")
