"""A gRPC server that gives every call the same bytes, or fails it: what may be at an address instead of Triton."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc


class _Any(grpc.GenericRpcHandler):
    def __init__(self, answer):
        self.answer = answer

    def service(self, _):
        return grpc.unary_unary_rpc_method_handler(self.answer)


@contextmanager
def raw_grpc(answer):
    """The port of a server; `answer` takes a request's bytes and gRPC's context, and returns bytes."""
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, (_Any(answer),), options=[("grpc.max_send_message_length", -1)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield port
        finally:
            server.stop(0).wait()
