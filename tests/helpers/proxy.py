"""A relay in front of a server: a network that can be cut, stalled, or made TLS, with the real server behind it."""

import asyncio
import contextlib


class Relay:
    """Passes connections on to HOST:PORT, inside the event loop of the test.

    port: its own. passed: bytes sent to the server.
    """

    def __init__(self, target, ssl=None):
        self.target, self.ssl = target.rpartition(":")[::2], ssl
        self.port, self.passed, self.stalled = 0, 0, False
        self._connections = set()

    async def open(self):
        """Listen: at the same port as before, if it did."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, ssl=self.ssl)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def cut(self):
        """Refuse new connections and break those there are."""
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader, writer):
        self._connections.add(asyncio.current_task())
        host, port = self.target
        try:
            there, back = await asyncio.open_connection(host, int(port))
            try:
                await asyncio.gather(self._pass(reader, back, True), self._pass(there, writer, False))
            finally:
                back.transport.abort()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(asyncio.current_task())
            writer.transport.abort()

    async def _pass(self, source, drain, there):
        while data := await source.read(2**16):
            while self.stalled:
                await asyncio.sleep(0.05)
            self.passed += len(data) if there else 0
            drain.write(data)
            await drain.drain()
        with contextlib.suppress(OSError):
            drain.close()
