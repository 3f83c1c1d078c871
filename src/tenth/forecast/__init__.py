"""How fast a model will run here, before it runs: a measured machine, counted work, and arithmetic.

    probe.py     what this machine can do, measured once and kept
    kernels.py   of that: how fast kernels are, by weight format and rows, from a program made for it
    hits.py      what share of streamed experts will be in memory
    speed.py     the arithmetic: costs of a step and rates of the machine -> seconds
    outlook.py   a header, settings and a probe -> what is resident, what streams, how fast and why
    mixes.py     the same model in other quantisations, estimated
    chart.py     speed against memory budget, for terminals and as SVG

Nothing here reads weights. docs/plan.md has the formulas and how well they fit.
"""
