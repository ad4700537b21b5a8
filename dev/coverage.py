#!/usr/bin/env python3
"""Prints what gcovr counted, and each line and branch that no test ran with the reason."""

import json
import re
import sys

AIMS = {"lines": 97.0, "branches": 90.0}


def read_reasons(path):
    """Lines of FILE, a regular expression for a line of it, and the reason, between tabs."""
    with open(path, encoding="utf-8") as file:
        return [re.split(r"\t+", line.rstrip("\n"), maxsplit=2) for line in file
                if line.strip() and not line.startswith("#")]


def share(taken, total):
    return 100.0 * taken / total if total else 100.0


def read_file(file):
    """The counts of a file, and what is left of it: the line's number, and the branches or None."""
    counts = {"lines": [0, 0], "branches": [0, 0]}
    left = []
    for line in file["lines"]:
        if line["gcovr/noncode"]:
            continue
        branches = [branch["count"] > 0 for branch in line["branches"]]
        counts["lines"][0] += line["count"] > 0
        counts["lines"][1] += 1
        counts["branches"][0] += sum(branches)
        counts["branches"][1] += len(branches)
        if line["count"] == 0:
            left.append((line["line_number"], None))
        elif not all(branches):
            left.append((line["line_number"], f"{branches.count(False)} of {len(branches)} branches"))
    return counts, left


def print_counts(name, counts):
    print(f"{name:<28}", *(f"{taken:5} of {total:5} {kind} {share(taken, total):6.2f} %  "
                           for kind, (taken, total) in counts.items()))


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        files = json.load(file)["files"]
    reasons = read_reasons(sys.argv[2])
    used = set()
    total = {"lines": [0, 0], "branches": [0, 0]}
    left = []
    for file in sorted(files, key=lambda file: file["file"]):
        counts, gaps = read_file(file)
        print_counts(file["file"], counts)
        for kind, (taken, of) in counts.items():
            total[kind][0] += taken
            total[kind][1] += of
        left.extend((file["file"], *gap) for gap in gaps)
    print_counts("all", total)

    print("\nleft, and why:")
    unexplained = 0
    for name, number, branches in left:
        with open(name, encoding="utf-8") as file:
            source = file.read().split("\n")[number - 1].strip()
        found = [reason for reason in reasons
                 if "src/" + reason[0] == name and re.search(reason[1], source)]
        used.update(id(reason) for reason in found)
        unexplained += not found or found[0][2].startswith("not checked")
        print(f"{name}:{number} {branches or 'line'}: {source}")
        print("    " + (found[0][2] if found else "NO REASON"))
    for reason in reasons:
        if id(reason) not in used:
            print(f"no longer left: src/{reason[0]}: {reason[1]}")

    low = [kind for kind, aim in AIMS.items() if not total[kind][0] or share(*total[kind]) < aim]
    print("\n" + ", ".join(f"{share(*total[kind]):.2f} % of {kind} (aim {aim:.0f} %)"
                           for kind, aim in AIMS.items()) + f", {unexplained} left without a reason that was checked")
    sys.exit(1 if low or unexplained else 0)


main()
