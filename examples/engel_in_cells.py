#!/usr/bin/env python3
"""Cancel workers from a notebook, on the household budgets of Ernst Engel.

A notebook as a script: each part that begins with `# %%` is a cell, as editors and jupytext show it.
The workers draw the 235 families again and again, and see how much of each further franc goes to food.
Two of them were ordered with a number that is far too large. They are found in the status, and
cancelled: one by its name, one by its id. The others never notice.

    pip install taylorism statsmodels
    python engel_in_cells.py
"""

# %% The data: income and what was spent on food, in Belgian francs a year (Engel, 1857)
from __future__ import annotations

import footprints
import numpy as np
from statsmodels import datasets

import taylorism

families = datasets.engel.load_pandas().data
income, food = families["income"].to_numpy(), families["foodexp"].to_numpy()


# %% The worker
class Drawer(taylorism.Worker):
    """Draws families, with repetition, and fits a line through each draw."""

    _footprint = dict(
        attr=dict(
            income=dict(type=footprints.FPList),
            food=dict(type=footprints.FPList),
            draws=dict(info="How many.", type=int),
            seed=dict(type=int),
        ),
    )

    def _task(self, **kwargs):
        income, food = np.array(self.income), np.array(self.food)
        random = np.random.default_rng(self.seed)
        slopes = []
        for _ in range(self.draws):
            drawn = random.integers(0, income.size, income.size)
            slopes.append(np.polyfit(income[drawn], food[drawn], 1)[0])
        return slopes


# %% The order. What is typed into cells is known to forks only, which are the default where there are any.
common = dict(name="seed [seed]", income=income.tolist(), food=food.tolist())
slots = footprints.proxy.scheduler(limit="threads", max_threads=2)
boss = taylorism.Boss(slots, start_method="fork", stop_grace=1.0)
first = boss.set_instructions(common, dict(seed=[1, 2, 3], draws=[10**12, 300, 300]))
more = boss.set_instructions(common, dict(seed=[4, 5, 6], draws=[300, 10**12, 300]))
boss.make_them_work()

# %% How far is it? Wait a little; a notebook shows the last line as a table.
while len(boss.status().done) < 2:
    boss.wait(0.1)
boss.status()

# %% Something is wrong with the first one. Start nothing more while I look.
boss.halt()
print(boss.status().running)

# %% Those two will never end.
print("cancelled:", boss.cancel("seed 1", more[1]))
boss.make_them_work()

# %% In slices, so that the cell need not be interrupted
for _ in range(600):
    if boss.wait(0.1):
        break

# %% What has come of it
boss.wait_till_finished()
print(boss.status())
report = boss.get_report()
slopes = np.concatenate([record["report"] for record in report["workers_report"]])
slope = np.polyfit(income, food, 1)[0]
low, high = np.percentile(slopes, [2.5, 97.5])

# %% What is known: the line through all families (Koenker and Bassett, 1982), and the law
if len(slopes) != 1200 or len(boss.status().cancelled) != 2 or abs(slope - 0.4852) > 0.0001:
    raise SystemExit(f"There should be 1200 slopes around 0.4852, not {len(slopes)} around {slope:.4f}.")
print(f"Of each further franc, between {low:.2f} and {high:.2f} went to food; of all francs, 0.64.")
if not 0.4 < low < slope < high < 0.63 < food.sum() / income.sum() < 0.65:
    raise SystemExit("That is not the law of Engel.")
print("The law of Engel: who has more spends a smaller share of it on food.")
