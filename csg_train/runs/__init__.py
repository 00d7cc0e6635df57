"""What `csg runs` does with the runs that there are; without torch, since it reads the files of hundreds of runs.

finding.py     run folders below folders
summary.py     a run in a few figures, whatever csg wrote it and however it ended
listing.py     `csg runs`: the table
best.py        `csg runs best`
comparing.py   `csg runs compare`
removing.py    `csg runs remove` and `csg runs prune`
"""
