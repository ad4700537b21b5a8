"""Charts in SVG, drawn by gnuplot: of lines over a logarithmic axis, and of bars."""
import os
import subprocess
import tempfile
from typing import NamedTuple

PANEL = (430, 330)
# The same text in any reader's browser, and no time of day in the file.
BEGIN = r"""
set encoding utf8
set terminal svg size {width},{height} font 'Helvetica,Arial,sans-serif,12' \
    background '#ffffff' noenhanced
set output '{output}'
set border 3 linecolor '#666666'
set tics nomirror textcolor '#333333'
set grid linecolor '#dddddd' linetype 1
set multiplot layout {rows},{columns} title '{title}' font ',15' \
    margins {margins} spacing {spacing}
"""


class Series(NamedTuple):
    """One line, or one kind of bar."""
    title: str
    points: list        # of lines (x, y), of bars a height or None for each group
    colour: str
    dash: str = ""      # as gnuplot writes it: "" is a full line, "-" a dashed one
    width: float = 2


class Panel(NamedTuple):
    """One chart of those in a file."""
    title: str
    series: list


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def begin(path, title, panels, columns):
    """The head of a file, and with how many rows it is laid out."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height = PANEL[0] * columns, PANEL[1] * rows + 90
    # In pixels: left, right, bottom with the legend, top; between panels across and down.
    margins = (72 / width, 1 - 14 / width, 98 / height, 1 - 62 / height)
    spacing = (82 / width, 84 / height)
    return BEGIN.format(
        width=width, height=height, output=path, rows=rows, columns=columns,
        title=title.replace("'", "''"), margins=",".join(f"{part:.4f}" for part in margins),
        spacing=",".join(f"{part:.4f}" for part in spacing))


def run(script):
    done = subprocess.run(["gnuplot"], input=script, encoding="utf-8", capture_output=True)
    if done.returncode or "warning" in done.stderr.lower():
        raise RuntimeError(f"gnuplot failed:\n{done.stderr}\n{script}")


def axes(panel, xlabel, ylabel):
    """What is set before a panel."""
    return (f"set title {quoted(panel.title)} font ',13' offset 0,-0.5\nset key off\n"
            f"set xlabel {quoted(xlabel)} offset 0,0.4\nset ylabel {quoted(ylabel)}\n")


def end(panels, columns, style):
    """One legend for all panels, below them: a plot of nothing, as wide as the whole."""
    series = {one.title: one for panel in panels for one in panel.series}
    rows = -(-len(panels) // min(columns, len(panels)))
    top = 50 / (PANEL[1] * rows + 90)
    script = ("unset title\nunset xlabel\nunset ylabel\nunset border\nunset tics\nunset grid\n"
              "unset arrow\nunset logscale\nset xrange [0:1]\nset yrange [0:1]\n"
              "set lmargin at screen 0\nset rmargin at screen 1\nset bmargin at screen 0\n"
              f"set tmargin at screen {top:.4f}\n"
              "set key inside center center horizontal Left reverse samplen 2.5 width 1"
              " font ',12'\n")
    return script + "plot " + ", ".join(f"NaN {style(one)} title {quoted(one.title)}"
                                        for one in series.values()) + "\nunset multiplot\n"


def line_style(series):
    dash = f" dashtype '{series.dash}'" if series.dash else ""
    return (f"with linespoints pointtype 7 pointsize 0.45 linewidth {series.width}"
            f" linecolor '{series.colour}'{dash}")


def bar_style(series):
    return f"with boxes linecolor '{series.colour}'"


def lines(path, title, panels, xlabel, ylabel, base=10, log_y=False, y_range="[*:*]", level=None,
          columns=2):
    """Lines over a logarithmic x, with its ticks where there are points; a grey one at a level."""
    with tempfile.TemporaryDirectory() as directory:
        script = begin(path, title, panels, columns)
        script += f"set logscale x {base}\n" + ("set logscale y 10\n" if log_y else "")
        # Limits are rounded to ticks: of the y axis alone.
        script += f"set yrange {y_range}\nset format y '%g'\n"
        if level is not None:
            script += (f"set arrow 1 from graph 0, first {level} to graph 1, first {level} nohead"
                       " linecolor '#888888' linewidth 1.5 back\n")
        for i, panel in enumerate(panels):
            xs = sorted({x for series in panel.series for x, _ in series.points})
            ticks = ", ".join(f"{quoted(short(x))} {x}" for x in xs)
            script += f"set xtics ({ticks})\nset xrange [{xs[0] / 1.25}:{xs[-1] * 1.25}]\n"
            script += axes(panel, xlabel, ylabel)
            parts = []
            for j, series in enumerate(panel.series):
                name = os.path.join(directory, f"{i}-{j}")
                with open(name, "w", encoding="utf-8") as file:
                    file.writelines(f"{x} {y}\n" for x, y in sorted(series.points))
                parts.append(f"{quoted(name)} {line_style(series)}")
            script += "plot " + ", ".join(parts) + "\n"
        run(script + end(panels, columns, line_style))


def bars(path, title, panels, groups, ylabel, columns=2):
    """Bars in groups: a list of the groups' names for each panel."""
    with tempfile.TemporaryDirectory() as directory:
        script = begin(path, title, panels, columns)
        script += ("set style data histograms\nset style histogram clustered gap 1.2\n"
                   "set style fill solid 0.9 noborder\nset yrange [0:*]\nset format y '%g'\n"
                   "set grid noxtics\n")
        for i, (panel, names) in enumerate(zip(panels, groups)):
            name = os.path.join(directory, str(i))
            with open(name, "w", encoding="utf-8") as file:
                for j, group in enumerate(names):
                    heights = (series.points[j] for series in panel.series)
                    file.write(f'"{group}" ' + " ".join(
                        "NaN" if height is None else str(height) for height in heights) + "\n")
            script += axes(panel, "", ylabel)
            script += "plot " + ", ".join(
                f"{quoted(name)} using {j + 2}:xtic(1) linecolor '{series.colour}'"
                for j, series in enumerate(panel.series)) + "\n"
        run(script + end(panels, columns, bar_style))


def short(count):
    """100, 10k, 1M."""
    if count >= 1_000_000:
        return f"{count / 1_000_000:g}M"
    return f"{count / 1000:g}k" if count >= 10_000 else f"{count:,}"
