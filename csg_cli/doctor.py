"""`csg doctor`."""

from __future__ import annotations

from csg_cli.options import Json, examples

EXAMPLES = examples("csg doctor", "csg doctor --json")


def doctor(as_json: Json = False) -> None:
    """Show what csg finds on this machine, what is wrong, and what to do: exit code 3 if something is.

    Versions, extras, devices, Triton and running servers, caches, shared memory, disks, limits, proxies. It holds no
    secret, so that it can go into a bug report.
    """
    from csg_serve.doctor.command import doctor_command

    doctor_command(as_json)
