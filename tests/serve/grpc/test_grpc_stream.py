# SPDX-License-Identifier: Apache-2.0
"""ModelStreamInfer: order, errors inside the stream, how much is in flight, its ends; and cancellation and deadlines."""

import asyncio
import queue
import threading

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tc
import tritonclient.grpc.aio as tca
from grpc_server import request
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from fastinfer.serve.grpc import Connections
from fastinfer.serve.messages import InferResponse

METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"


def number(i, cls=tc):
    tensor = cls.InferInput("i", [1], "INT64")
    tensor.set_data_from_numpy(np.array([i]))
    return [tensor]


def test_callbacks_in_the_order_of_the_requests(server):
    answers = queue.Queue()
    with tc.InferenceServerClient(server.address) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for i in range(300):
            client.async_stream_infer("echo" if i % 7 else "nobody", number(i), request_id=str(i))
        client.stop_stream()  # closes our side and waits for the answers
    assert answers.qsize() == 300
    for i in range(300):
        result, error = answers.get_nowait()
        if i % 7:
            assert error is None and result.as_numpy("i").tolist() == [i] and result.get_response().id == str(i)
            assert result.get_response().parameters["triton_final_response"].bool_param
        else:
            assert "no model is called 'nobody'" in error.message()


def test_the_asyncio_clients_stream(server):
    async def requests():
        for i in range(20):
            yield {"model_name": "echo", "inputs": number(i, tca), "request_id": str(i)}

    async def main():
        async with tca.InferenceServerClient(server.address) as client:
            return [(r.as_numpy("i").tolist(), e) async for r, e in client.stream_infer(requests())]

    assert server.run(main()) == [([i], None) for i in range(20)]


def test_an_error_names_its_request_and_the_stream_goes_on(server):
    bad = [request("echo", ("i", "INT64", [2]), raw=[b"short"], id="a"), request("broken", id="b"),
           request("echo", ("i", "INT8", [1]), raw=[b"\1"], id="c")]  # fmt: skip
    answers = list(server.stub.ModelStreamInfer(iter(bad), timeout=20))
    assert [a.infer_response.id for a in answers] == ["a", "b", "c"]
    assert "5 bytes were given; INT64 [2] needs 16" in answers[0].error_message
    assert "an internal error" in answers[1].error_message and "passwd" not in answers[1].error_message
    assert answers[2].error_message == "" and answers[2].infer_response.raw_output_contents == [b"\1"]


def test_what_cannot_be_decoded_is_an_error_inside_the_stream(server):
    stream = server.channel.stream_stream(METHOD, response_deserializer=service_pb2.ModelStreamInferResponse.FromString)
    good = request("echo", ("i", "INT8", [1]), raw=[b"\1"]).SerializeToString()
    answers = list(stream(iter([b"\xff" * 9, good]), timeout=20))
    assert "cannot be decoded" in answers[0].error_message and answers[1].infer_response.raw_output_contents == [b"\1"]


class Gauge:
    """Echo that counts how many requests are inside, and lets them out when told to."""

    def __init__(self, running, expected):
        self.running, self.expected = running, expected
        self.inside = self.most = 0
        self.let_out = asyncio.Event()
        self.full = threading.Event()

    async def __call__(self, request):
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == self.expected:
            self.full.set()
        await self.let_out.wait()
        self.inside -= 1
        return InferResponse(request.model, "1", request.inputs, request.id)


@pytest.fixture
def narrow(serving):
    return serving(connections=Connections(in_flight=4))


def test_no_more_in_flight_than_allowed(narrow):
    narrow.service.infer = gauge = Gauge(narrow, expected=4)
    answers = narrow.stub.ModelStreamInfer(iter([request("echo", ("i", "INT8", [1]), raw=[b"\1"], id=str(i))
                                                for i in range(50)]), timeout=20)  # fmt: skip
    assert gauge.full.wait(20)
    # A round trip on the same connection: what was sent before it has been read as far as it ever will be.
    assert narrow.stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=20).live
    assert (gauge.inside, gauge.most) == (4, 4)
    narrow.loop.call_soon_threadsafe(gauge.let_out.set)
    assert [a.infer_response.id for a in answers] == [str(i) for i in range(50)]
    assert gauge.most == 4


def test_a_stream_that_is_cancelled_takes_its_requests_with_it(serving):
    running = serving()
    answers = running.stub.ModelStreamInfer(iter([request("stuck"), request("stuck")]), timeout=20)
    running.run(running.service.stuck.wait())
    answers.cancel()
    running.run(running.service.cancelled.wait())
    with pytest.raises(grpc.RpcError) as e:
        list(answers)
    assert e.value.code() is grpc.StatusCode.CANCELLED


def test_stop_answers_what_was_asked_and_ends_the_stream(serving):
    running = serving()
    running.service.infer = gauge = Gauge(running, expected=3)
    waiting = threading.Event()

    def requests():
        yield from (request("echo", ("i", "INT8", [1]), raw=[b"\1"], id=str(i)) for i in range(3))
        waiting.wait(20)  # the client keeps its side open

    answers = running.stub.ModelStreamInfer(requests(), timeout=20)
    assert gauge.full.wait(20)

    async def stop():
        stopping = asyncio.create_task(running.server.stop(20))
        await asyncio.sleep(0)
        gauge.let_out.set()
        await stopping

    stopped = asyncio.run_coroutine_threadsafe(stop(), running.loop)
    got = []
    with pytest.raises(grpc.RpcError) as e:
        for answer in answers:
            got.append(answer.infer_response.id)
    waiting.set()
    assert got == ["0", "1", "2"] and e.value.code() is grpc.StatusCode.UNAVAILABLE
    assert e.value.details() == "the server is shutting down"
    assert stopped.result(20) is None
    with pytest.raises(grpc.RpcError):
        running.stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=5)


def test_stop_lets_unary_calls_finish_and_cancels_after_the_grace(serving):
    running = serving()
    running.service.infer = gauge = Gauge(running, expected=1)
    call = running.stub.ModelInfer.future(request("echo", ("i", "INT8", [1]), raw=[b"\1"]), timeout=20)
    assert gauge.full.wait(20)
    stopped = asyncio.run_coroutine_threadsafe(running.server.stop(20), running.loop)
    running.loop.call_soon_threadsafe(gauge.let_out.set)
    assert call.result(20).raw_output_contents == [b"\1"]
    stopped.result(20)

    running = serving()
    call = running.stub.ModelInfer.future(request("stuck"), timeout=20)
    running.run(running.service.stuck.wait())
    running.run(running.server.stop(0.05))
    running.run(running.service.cancelled.wait())
    assert call.exception(20).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


# -------------------------------------------------------------------------------------------------------------- unary calls


def test_a_client_that_cancels_takes_its_request_with_it(serving):
    running = serving()
    with tc.InferenceServerClient(running.address) as client:
        ended = queue.Queue()
        call = client.async_infer("stuck", number(1), lambda result, error: ended.put(error))
        running.run(running.service.stuck.wait())
        call.cancel()
        running.run(running.service.cancelled.wait())
        assert ended.get(timeout=20).status() == "StatusCode.CANCELLED"
        np.testing.assert_array_equal(client.infer("echo", number(5)).as_numpy("i"), [5])


def test_a_deadline_ends_the_request(serving):
    running = serving()
    with tc.InferenceServerClient(running.address) as client:
        with pytest.raises(InferenceServerException) as e:
            client.infer("stuck", number(1), client_timeout=0.2)
        assert e.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        running.run(running.service.cancelled.wait())
        assert running.service.seen[-1].timeout < 0.25


def test_a_connection_that_is_lost_takes_its_requests_with_it(serving):
    running = serving()
    client = tc.InferenceServerClient(running.address)
    client.async_infer("stuck", number(1), lambda result, error: None)
    running.run(running.service.stuck.wait())
    client.close()
    running.run(running.service.cancelled.wait())
