"""Stream any number of images through a served classifier in constant memory; an unreadable file does not stop it.

python examples/async_stream.py localhost:8001 photos
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from csg.errors import InputError
from csg_serve import open_model, stream


async def main(server: str, folder: str) -> None:
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    async with open_model(server) as served:
        names = iter(files)
        async for prediction in stream(served, files):
            file = next(names)
            if isinstance(prediction, InputError):
                print(f"{file.name}\tskipped: {prediction.message}")
            else:
                print(f"{file.name}\t{served.card.classes[prediction.argmax()]}")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
