"""A gRPC server on two free ports, plaintext and TLS. Prints them; ends with its input."""

import os
import sys
import threading
from concurrent import futures

import grpc

cancelled = threading.Semaphore(0)


def unary(request, context):
    asked = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-answer", asked.get("x-ask", "")),))
    context.set_trailing_metadata((("x-length", str(len(request))), ("x-raw-bin", b"\x00\xff")))
    return request


def down(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def up(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def chat(requests, context):
    for request in requests:
        yield b"echo " + request


def fail(request, context):
    context.set_trailing_metadata((("x-detail", "why"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nicht möglich: 100 %")


def fail_late(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "lost")


def refuse(requests, context):
    """Answers before it read anything."""
    context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")


def wait(request, context):
    """Yields once, then waits until the call is over."""
    ended = threading.Event()
    context.add_callback(ended.set)
    yield b"waiting"
    ended.wait(60)
    cancelled.release()


def ended(request, context):
    """Whether a `wait` ended within the time that is asked for."""
    return b"yes" if cancelled.acquire(timeout=float(request)) else b"no"


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Down": grpc.unary_stream_rpc_method_handler(down),
    "Up": grpc.stream_unary_rpc_method_handler(up),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "FailLate": grpc.unary_stream_rpc_method_handler(fail_late),
    "Refuse": grpc.stream_unary_rpc_method_handler(refuse),
    "Wait": grpc.unary_stream_rpc_method_handler(wait),
    "Ended": grpc.unary_unary_rpc_method_handler(ended),
}


def main():
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=unlimited)
    names = ["plain.Echo", "secure.Echo"]
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, HANDLERS) for name in names])
    with open(os.environ["KEY_FILE"], "rb") as key, open(os.environ["CERT_FILE"], "rb") as certificate:
        credentials = grpc.ssl_server_credentials([(key.read(), certificate.read())])
    plain = server.add_insecure_port("127.0.0.1:0")
    secure = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    print(plain, secure, flush=True)
    sys.stdin.read()
    server.stop(0)


main()
