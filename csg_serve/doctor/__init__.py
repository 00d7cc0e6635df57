"""`csg doctor`: what csg finds on this machine, what is wrong, and what to do; with any of csg's extras, or none.

report.py        a part of the report, and a problem
software.py      csg, Python, packages, and whether they can be imported
hardware.py      CPU, memory, GPU, shared memory, disks, limits
triton.py        the Triton that `csg serve` would start, and the servers that run
surroundings.py  caches, proxies, locale, terminal
command.py       the command
"""
