# SPDX-License-Identifier: Apache-2.0
"""Our descriptors against those that the reference client was generated with."""

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from fastinfer.serve.grpc import schema


def messages(descriptors):
    for d in descriptors:
        yield d
        yield from messages(d.nested_types)


def described(field):
    """All that the wire and the JSON of a field depend on."""
    target = field.message_type or field.enum_type
    oneof = field.containing_oneof
    return (field.name, field.json_name, field.number, field.type, field.is_repeated, field.is_packed,
            target and target.full_name, oneof and oneof.name)  # fmt: skip


def by_name(*files):
    return {d.full_name: d for f in files for d in messages(f.message_types_by_name.values())}


OURS = by_name(schema.POOL.FindFileByName(schema.FILE))
CALLS = by_name(service_pb2.DESCRIPTOR)
CONFIG = by_name(model_config_pb2.DESCRIPTOR)
ENUMS = ["DataType", "ModelInput.Format", "ModelQueuePolicy.TimeoutAction", "ModelInstanceGroup.Kind"]


@pytest.mark.parametrize("name", sorted(CALLS))
def test_every_message_of_the_service_is_the_clients(name):
    ours, theirs = OURS[name], CALLS[name]
    assert sorted(map(described, ours.fields)) == sorted(map(described, theirs.fields))
    assert ours.GetOptions().map_entry == theirs.GetOptions().map_entry


@pytest.mark.parametrize("name", sorted(set(OURS) - set(CALLS)))
def test_what_we_say_of_a_models_configuration_reads_as_the_clients(name):
    ours, theirs = OURS[name], CONFIG[name]
    assert set(map(described, ours.fields)) <= set(map(described, theirs.fields))
    assert ours.GetOptions().map_entry == theirs.GetOptions().map_entry


@pytest.mark.parametrize("enum", ENUMS)
def test_enums(enum):
    values = lambda d: [(v.name, v.number) for v in d.values]  # noqa: E731
    ours = schema.POOL.FindEnumTypeByName(f"inference.{enum}")
    scope, _, name = enum.rpartition(".")
    module = model_config_pb2.DESCRIPTOR
    theirs = (CONFIG[f"inference.{scope}"] if scope else module).enum_types_by_name[name]
    assert values(ours) == values(theirs)


def test_the_service_has_every_call():
    calls = lambda s: {  # noqa: E731
        (m.name, m.input_type.full_name, m.output_type.full_name, m.client_streaming, m.server_streaming)
        for m in s.methods
    }
    ours = schema.POOL.FindServiceByName(schema.SERVICE)
    assert calls(ours) == calls(service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])


def test_bytes_of_ours_are_bytes_of_theirs():
    theirs = service_pb2.ModelInferRequest(model_name="m", id="é", raw_input_contents=[b"12", b""])
    theirs.inputs.add(name="x", datatype="FP32", shape=[2, 300]).parameters["k"].double_param = 0.5
    ours = schema.message("ModelInferRequest").FromString(theirs.SerializeToString())
    assert ours.inputs[0].parameters["k"].WhichOneof("parameter_choice") == "double_param"
    assert ours.SerializeToString() == theirs.SerializeToString()
    assert type(ours) is not type(theirs)
