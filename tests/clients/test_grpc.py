"""grpcio through the gateway: both client legs (h2c, TLS) times both origin legs."""

import os
import threading
import time

import grpc

import runner

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def channels():
    with open(os.environ["CA_FILE"], "rb") as authority:
        credentials = grpc.ssl_channel_credentials(authority.read())
    yield "h2c", grpc.insecure_channel(os.environ["H2C"], options=UNLIMITED)
    yield "tls", grpc.secure_channel(os.environ["TLS"], credentials, options=UNLIMITED)


CHANNELS = dict(channels())
LEGS = [(name, origin) for name in CHANNELS for origin in ("plain", "secure")]


def method(leg, kind, name):
    client, origin = leg
    return getattr(CHANNELS[client], kind)(f"/{origin}.Echo/{name}")


def on_every_leg(check):
    for leg in LEGS:
        try:
            check(leg)
        except Exception as error:
            raise AssertionError(f"client over {leg[0]}, origin {leg[1]}") from error


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


def test_unary_with_metadata_both_ways():
    def check(leg):
        answer, call = method(leg, "unary_unary", "Unary").with_call(
            b"hello", metadata=(("x-ask", "what"),), timeout=20
        )
        assert answer == b"hello"
        assert dict(call.initial_metadata())["x-answer"] == "what"
        trailers = dict(call.trailing_metadata())
        assert trailers["x-length"] == "5" and trailers["x-raw-bin"] == b"\x00\xff", trailers

    on_every_leg(check)


def test_server_streaming():
    def check(leg):
        answers = list(method(leg, "unary_stream", "Down")(b"500", timeout=20))
        assert answers == [str(number).encode() for number in range(500)]

    on_every_leg(check)


def test_client_streaming():
    def check(leg):
        parts = (b"x" * 1000 for _ in range(500))
        assert method(leg, "stream_unary", "Up")(parts, timeout=20) == b"500000"

    on_every_leg(check)


def test_bidirectional_turn_by_turn():
    def check(leg):
        go = threading.Semaphore(1)

        def questions():
            for number in range(50):
                go.acquire()
                yield str(number).encode()

        answers = []
        for answer in method(leg, "stream_stream", "Chat")(questions(), timeout=20):
            answers.append(answer)
            go.release()
        assert answers == [f"echo {number}".encode() for number in range(50)]

    on_every_leg(check)


def test_large_messages():
    def check(leg):
        message = os.urandom(4 << 20)
        assert method(leg, "unary_unary", "Unary")(message, timeout=30) == message

    on_every_leg(check)


def test_errors_keep_code_details_and_metadata():
    def check(leg):
        error = failure(lambda: method(leg, "unary_unary", "Fail")(b"", timeout=20))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert error.details() == "nicht möglich: 100 %"
        assert dict(error.trailing_metadata())["x-detail"] == "why"

    on_every_leg(check)


def test_an_error_after_the_first_message():
    def check(leg):
        stream = method(leg, "unary_stream", "FailLate")(b"", timeout=20)
        assert next(stream) == b"one"
        error = failure(lambda: next(stream))
        assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost")

    on_every_leg(check)


def test_an_error_before_the_request_is_read():
    def check(leg):
        endless = threading.Event()

        def parts():
            while not endless.is_set():
                yield b"x" * 10000

        error = failure(lambda: method(leg, "stream_unary", "Refuse")(parts(), timeout=20))
        endless.set()
        assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "not you")

    on_every_leg(check)


def test_unknown_methods():
    def check(leg):
        error = failure(lambda: method(leg, "unary_unary", "Nothing")(b"", timeout=20))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED

    on_every_leg(check)


def test_deadlines_are_kept_and_end_the_call_at_the_server():
    def check(leg):
        stream = method(leg, "unary_stream", "Wait")(b"", timeout=0.5)
        assert next(stream) == b"waiting"
        assert failure(lambda: next(stream)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert method(leg, "unary_unary", "Ended")(b"20", timeout=30) == b"yes"

    on_every_leg(check)


def test_cancellation_is_seen_by_the_server():
    def check(leg):
        stream = method(leg, "unary_stream", "Wait")(b"", timeout=60)
        assert next(stream) == b"waiting"
        assert method(leg, "unary_unary", "Ended")(b"0", timeout=20) == b"no"
        stream.cancel()
        assert method(leg, "unary_unary", "Ended")(b"20", timeout=30) == b"yes"

    on_every_leg(check)


def test_a_service_that_nobody_offers():
    for client, channel in CHANNELS.items():
        call = channel.unary_unary("/nobody.Echo/Unary")
        assert failure(lambda: call(b"", timeout=20)).code() == grpc.StatusCode.UNIMPLEMENTED, client


def test_an_origin_that_is_away():
    for client, channel in CHANNELS.items():
        error = failure(lambda: channel.unary_unary("/away.Echo/Unary")(b"", timeout=20))
        assert error.code() == grpc.StatusCode.UNAVAILABLE, client
        assert "cannot be reached" in error.details(), error.details()


def test_soak():
    def check(leg):
        unary = method(leg, "unary_unary", "Unary")
        began = time.monotonic()
        calls = [unary.future(str(number).encode(), timeout=60) for number in range(250)]
        answers = [call.result() for call in calls]
        assert answers == [str(number).encode() for number in range(250)]
        print(f"{leg}: 250 calls in {time.monotonic() - began:.2f} s")

    on_every_leg(check)


runner.run(globals())
