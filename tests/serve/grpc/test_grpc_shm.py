# SPDX-License-Identifier: Apache-2.0
"""System shared memory through the reference client, and what goes wrong with it (case 27)."""

import os
import uuid

import grpc
import numpy as np
import pytest
import tritonclient.grpc as tc
import tritonclient.utils.shared_memory as tshm
from grpc_server import request
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from fastinfer.serve.grpc import codec

X = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)


@pytest.fixture
def client(server):
    with tc.InferenceServerClient(server.address) as client:
        yield client
        client.unregister_system_shared_memory()


@pytest.fixture
def region():
    """region(size) → (key, handle) of a new object of the client's."""
    handles = []

    def make(size):
        key = f"/fi_test_{uuid.uuid4().hex}"
        handles.append(tshm.create_shared_memory_region("mine", key, size))
        return key, handles[-1]

    yield make
    for handle in handles:
        tshm.destroy_shared_memory_region(handle)


def refused(status, match, call, *args, **kwargs):
    with pytest.raises(InferenceServerException, match=match) as e:
        call(*args, **kwargs)
    assert e.value.status() == f"StatusCode.{status}"
    assert "/dev/shm" not in str(e.value) and "fi_test_" not in str(e.value)


def shared_input(size=X.nbytes, offset=0, name="r", tensor="x"):
    given = tc.InferInput(tensor, [4, 16], "FP32")
    given.set_shared_memory(name, size, offset)
    return given


def shared_output(name, size, offset=0, output="y"):
    wanted = tc.InferRequestedOutput(output)
    wanted.set_shared_memory(name, size, offset)
    return wanted


def test_inputs_and_outputs_in_shared_memory(server, client, region):
    key, handle = region(4096)
    tshm.set_shared_memory_region(handle, [X], offset=64)
    client.register_system_shared_memory("r", key, 4096 - 64, offset=64)
    status = client.get_system_shared_memory_status("r", as_json=True)["regions"]["r"]
    assert status == {"name": "r", "key": key, "offset": "64", "byte_size": "4032"}
    expected = server.service.model.run({"x": X})["y"]
    result = client.infer("mlp", [shared_input()], outputs=[shared_output("r", 1024, 1024)])
    np.testing.assert_array_equal(tshm.get_contents_as_numpy(handle, np.float32, [4, 4], offset=64 + 1024), expected)
    output = result.get_output("y")
    assert output.parameters["shared_memory_region"].string_param == "r"
    assert output.parameters["shared_memory_byte_size"].int64_param == expected.nbytes and list(output.shape) == [4, 4]
    assert result.get_response().raw_output_contents == [b""]
    np.testing.assert_array_equal(client.infer("mlp", [shared_input()]).as_numpy("y"), expected)


def test_shared_and_raw_inputs_mix(client, region):
    key, handle = region(X.nbytes)
    tshm.set_shared_memory_region(handle, [X])
    client.register_system_shared_memory("r", key, X.nbytes)
    other = tc.InferInput("b", [2], "INT64")
    other.set_data_from_numpy(np.array([1, 2]))
    last = tc.InferInput("c", [1], "BYTES")
    last.set_data_from_numpy(np.array([b"s"], object))
    result = client.infer("echo", [other, shared_input(), last])
    np.testing.assert_array_equal(result.as_numpy("x"), X)
    assert result.as_numpy("b").tolist() == [1, 2] and result.as_numpy("c").tolist() == [b"s"]


def test_strings_in_shared_memory(client, region):
    strings = np.array([b"a", b"", b"\xff\0"], object)
    key, handle = region(64)
    tshm.set_shared_memory_region(handle, [serialize_byte_tensor(strings)])
    size = 3 * 4 + 3
    client.register_system_shared_memory("r", key, 64)
    given = tc.InferInput("s", [3], "BYTES")
    given.set_shared_memory("r", size)
    result = client.infer("echo", [given], outputs=[shared_output("r", 32, 32, "s")])
    assert result.get_output("s").parameters["shared_memory_byte_size"].int64_param == size
    assert tshm.get_contents_as_numpy(handle, np.object_, [3], offset=32).tolist() == strings.tolist()


def test_a_tensor_large_enough_for_a_thread(client, region):
    array = np.arange(codec.HEAVY_COPY, dtype=np.int32)
    key, handle = region(2 * array.nbytes)
    tshm.set_shared_memory_region(handle, [array])
    client.register_system_shared_memory("r", key, 2 * array.nbytes)
    given = tc.InferInput("x", [len(array)], "INT32")
    given.set_shared_memory("r", array.nbytes)
    client.infer("echo", [given], outputs=[shared_output("r", array.nbytes, array.nbytes, "x")])
    np.testing.assert_array_equal(
        tshm.get_contents_as_numpy(handle, np.int32, [len(array)], offset=array.nbytes), array
    )


def test_regions_come_and_go(client, region):
    key, _ = region(16)
    client.register_system_shared_memory("a", key, 8)
    client.register_system_shared_memory("b", key, 8, offset=8)
    refused("ALREADY_EXISTS", "'a' is registered already", client.register_system_shared_memory, "a", key, 16)
    assert set(client.get_system_shared_memory_status().regions) == {"a", "b"}
    client.unregister_system_shared_memory("a")
    refused("NOT_FOUND", "no shared memory region is registered as 'a'", client.get_system_shared_memory_status, "a")
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions


def test_registrations_that_are_refused(client, region):
    key, _ = region(16)
    register = client.register_system_shared_memory
    refused("INVALID_ARGUMENT", "the object has 16", register, "r", key, 17)
    refused("INVALID_ARGUMENT", "the object has 16", register, "r", key, 8, offset=9)
    refused("INVALID_ARGUMENT", "cannot be", register, "r", key, 8, offset=(1 << 64) - 4)
    for other in ("/../etc/passwd", "/etc/passwd", "/fastinfer-1", "/sem.x", "/not_there", ""):
        refused("INVALID_ARGUMENT", "no object under the given key", register, "r", other, 1)


def test_tensors_that_do_not_fit(client, region):
    key, _ = region(4096)
    client.register_system_shared_memory("r", key, 4096)
    infer = lambda given, outputs=None: client.infer("mlp", [given], outputs=outputs)  # noqa: E731
    refused("INVALID_ARGUMENT", "has 4096 bytes; 256 at offset 4000", infer, shared_input(offset=4000))
    refused("INVALID_ARGUMENT", "at offset 9223372036854775807", infer, shared_input(offset=(1 << 63) - 1))
    refused("INVALID_ARGUMENT", "100 bytes were given", infer, shared_input(size=100))
    refused("NOT_FOUND", "no shared memory region is registered as 'q'", infer, shared_input(name="q"))
    refused(
        "INVALID_ARGUMENT",
        "output 'y' has 64 bytes; shared_memory_byte_size is 63",
        infer,
        shared_input(),
        [shared_output("r", 63)],
    )
    refused(
        "INVALID_ARGUMENT", "has 4096 bytes; 64 at offset 4090", infer, shared_input(), [shared_output("r", 64, 4090)]
    )


def test_an_object_that_shrinks(client, region):
    key, _ = region(1 << 20)
    client.register_system_shared_memory("r", key, 1 << 20)
    os.truncate(f"/dev/shm{key}", 100)
    refused("INVALID_ARGUMENT", "has become shorter", client.infer, "mlp", [shared_input()])
    outside = tc.InferInput("x", [4, 16], "FP32")
    outside.set_data_from_numpy(X)
    refused(
        "INVALID_ARGUMENT", "has become shorter", client.infer, "mlp", [outside], outputs=[shared_output("r", 64, 4096)]
    )
    assert os.stat(f"/dev/shm{key}").st_size == 100
    assert client.is_server_live()


def test_unregistered_while_a_request_uses_it(server, client, region):
    key, handle = region(1024)
    tshm.set_shared_memory_region(handle, [X])
    client.register_system_shared_memory("r", key, 1024)
    whole, original = server.service.infer, server.service.infer

    async def unregisters_first(request):
        server.server._regions.unregister("r")
        return await original(request)

    server.service.infer = unregisters_first
    try:
        client.infer("mlp", [shared_input()], outputs=[shared_output("r", 64, 512)])
    finally:
        server.service.infer = whole
    expected = server.service.model.run({"x": X})["y"]
    np.testing.assert_array_equal(tshm.get_contents_as_numpy(handle, np.float32, [4, 4], offset=512), expected)
    refused("NOT_FOUND", "no shared memory region", client.infer, "mlp", [shared_input()])


def test_parameters_of_the_wrong_type(server):
    message = request("mlp", ("x", "FP32", [4, 16]))
    parameters = message.inputs[0].parameters
    parameters["shared_memory_region"].int64_param = 5
    parameters["shared_memory_byte_size"].string_param = "256"
    with pytest.raises(grpc.RpcError) as e:
        server.stub.ModelInfer(message, timeout=20)
    assert e.value.code() is grpc.StatusCode.NOT_FOUND
    del parameters["shared_memory_byte_size"]
    with pytest.raises(grpc.RpcError) as e:
        server.stub.ModelInfer(message, timeout=20)
    assert "shared_memory_byte_size is missing" in e.value.details()


def test_it_is_off_unless_asked_for(serving, region):
    key, _ = region(16)
    with tc.InferenceServerClient(serving().address) as client:
        # What clients do before they begin must not fail.
        assert not client.get_system_shared_memory_status().regions
        client.unregister_system_shared_memory()
        for call in (lambda: client.get_system_shared_memory_status("r"),
                     lambda: client.register_system_shared_memory("r", key, 16), lambda: client.infer("mlp", [shared_input()])):  # fmt: skip
            refused("UNIMPLEMENTED", "shared memory (is )?switched off", call)
