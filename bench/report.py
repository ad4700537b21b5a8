"""From the measurements of a run: results.json, the page of tables and the plots."""
import json
import math
import os
import statistics

import aims
import page
import plots


def significant(number):
    """To four digits: the others would be noise, and make every diff longer."""
    return float(f"{number:.4g}")


def quartiles(values):
    """The first, the median and the third."""
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def summary_of_side(values):
    low, middle, high = quartiles(values)
    return {"median": significant(middle), "low": significant(low), "high": significant(high),
            "spread": significant((high - low) / middle if middle else 0), "rounds": len(values)}


def interval_of_median(values):
    """The interval that holds the true median with a confidence of 95 %, as a sign test has it,
    whatever the distribution. Fewer than six values give no such interval; then all of them."""
    values = sorted(values)
    # That at most i values are below the median is as likely as at most i heads of so many coins.
    outside, skipped = 0, -1
    while outside <= 0.025:
        skipped += 1
        outside += math.comb(len(values), skipped) / 2 ** len(values)
    skipped = max(skipped - 1, 0)
    return values[skipped], values[-1 - skipped]


def summary_of_ratio(ratio, sides, paired):
    """The ratio of the medians, and the quartiles of the ratios of the rounds; or the median of
    these, and the interval of that."""
    ours, theirs = sides[ratio.ours], sides[ratio.theirs]
    figure = statistics.median(ours) / statistics.median(theirs)
    summary = {"ours": ratio.ours, "theirs": ratio.theirs}
    if paired and len(ours) == len(theirs) > 1:
        rounds = [mine / other for mine, other in zip(ours, theirs) if other]
        low, middle, high = quartiles(rounds)
        if ratio.by_rounds:
            figure = middle
            low, high = interval_of_median(rounds)
            summary["by_rounds"] = True
        summary |= {"low": significant(low), "high": significant(high)}
    summary["ratio"] = significant(figure)
    if ratio.aim is not None:
        summary |= {"aim": ratio.aim, "at_least": ratio.at_least,
                    "met": figure >= ratio.aim if ratio.at_least else figure <= ratio.aim}
    return summary


def summary_of(measurement):
    """A measurement without its single values."""
    return {
        "section": measurement.section, "name": measurement.name, "dialect": measurement.dialect,
        "size": measurement.size, "count": measurement.count, "unit": measurement.unit,
        "note": measurement.note,
        "sides": {side: summary_of_side(values) for side, values in measurement.sides.items()},
        "ratios": [summary_of_ratio(ratio, measurement.sides, measurement.paired)
                   for ratio in measurement.ratios]}


def results_of(measurements, machine, seconds, quick, failures):
    """All that is reported of a run."""
    found = [summary_of(measurement) for measurement in measurements]
    return {"quick": quick, "failures": failures, "machine": machine,
            "seconds": {name: round(taken, 1) for name, taken in seconds.items()},
            "aims": aims.judge(found), "measurements": found}


def write_json(results, path):
    """With one measurement a line, so that one sees in a diff which have changed."""
    parts = []
    for key, value in results.items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in value) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    with open(path, "w", encoding="utf-8") as file:
        file.write("{\n" + ",\n".join(parts) + "\n}\n")


def write(results, directory):
    """Writes everything into the directory, anew: the page's text."""
    os.makedirs(directory, exist_ok=True)
    for name in os.listdir(directory):
        if name.endswith(".svg"):
            os.remove(os.path.join(directory, name))
    drawn, missing = plots.draw(results["measurements"], directory)
    # Where something has failed already, that is why.
    if not results["failures"]:
        results["failures"] += [f"nothing to draw {name} of" for name in missing]
    write_json(results, os.path.join(directory, "results.json"))
    text = page.page(results, drawn)
    with open(os.path.join(directory, "README.md"), "w", encoding="utf-8") as file:
        file.write(text)
    return text


def read(directory):
    """The results that are there; the aims are judged anew."""
    with open(os.path.join(directory, "results.json"), encoding="utf-8") as file:
        results = json.load(file)
    results["aims"] = aims.judge(results["measurements"])
    return results
