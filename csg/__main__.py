"""`python -m csg`, as `torchrun -m csg` needs it."""

from csg.cli import main

main()
