#!/usr/bin/env python3
"""Find the warmest and the coldest month of the sea off Peru, by commands, and by functions.

The sea surface temperatures of the tropical Pacific off Peru, 1950-2010, are written to a file for each
month. A command of the shell, `awk`, takes the mean of each file; a worker of kind 'shell' runs it, without a
class of its own. `Boss.map` does the same with a function of the statistics module. One of the files is
then damaged, and the command tells what is wrong.

    pip install taylorism statsmodels
    python sea_by_month.py
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from statsmodels import datasets

import taylorism
import taylorism.workers

#: the warmest and the coldest month there, as every atlas of the climate has it
KNOWN = ("MAR", "SEP")

MEAN = """awk '$1 !~ /^[0-9.]+$/ {print FILENAME ": line " NR ": " $0 >"/dev/stderr"; exit 2}
               {sum += $1} END {if (NR) printf "%.3f", sum / NR}' [A-Z]*.txt"""


def write(directory, temperatures):
    """Write a directory for each month, with a file."""
    for month, values in temperatures.items():
        (directory / month).mkdir()
        (directory / month / f"{month}.txt").write_text("".join(f"{value}\n" for value in values))


def means_by_command(directory, months):
    """Return the mean of each month, as a command found it, and the errors."""
    boss = taylorism.run_as_server(
        common_instructions=dict(kind="shell", command=MEAN),
        individual_instructions=dict(name=months, cwd=[directory / month for month in months]),
        on_error="collect",
    )
    boss.wait_till_finished()
    reports = boss.get_report()["workers_report"]
    return {record["name"]: float(record["report"].stdout) for record in reports}, boss.errors


def main():
    """Compare both, and damage a file."""
    data = datasets.elnino.load_pandas().data
    temperatures = {month: data[month].tolist() for month in data.columns if month != "YEAR"}
    months = list(temperatures)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write(directory, temperatures)
        by_command, errors = means_by_command(directory, months)
        with (directory / "JUN" / "JUN.txt").open("a") as file:
            file.write("cold\n")
        _, failures = means_by_command(directory, months)
    with taylorism.Boss() as boss:
        means = boss.map(statistics.fmean, temperatures.values(), chunksize=4)
        by_function = dict(zip(months, means, strict=True))

    if errors or any(abs(by_command[month] - by_function[month]) > 0.0006 for month in months):
        raise SystemExit("The commands and the function should agree.")
    print(f"{len(by_command)} months, the same mean by command and by function.")
    if list(failures) != ["JUN"]:
        raise SystemExit("The damaged file, and no other, should be noticed.")
    print(f"JUN has failed, status {failures['JUN'].returncode}: {failures['JUN'].stderr.strip()}")
    found = (max(by_command, key=by_command.get), min(by_command, key=by_command.get))
    for month in found:
        print(f"    {month}  {by_command[month]:.1f} degrees")
    if found != KNOWN:
        raise SystemExit(f"The extremes should be {KNOWN}, not {found}.")
    print("The sea off Peru is warmest in March, and coldest in September.")


if __name__ == "__main__":
    main()
