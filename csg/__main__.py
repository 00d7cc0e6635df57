"""`python -m csg`, as `torchrun -m csg` needs it."""

from csg_cli import main

main()
