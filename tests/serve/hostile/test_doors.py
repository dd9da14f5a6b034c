# SPDX-License-Identifier: Apache-2.0
"""No way around the gate of a whole server: every route and call, however its name is written."""

import numpy as np
import pytest
from clients import KINDS, Client
from doors import bearer
from tritonclient.utils import InferenceServerException

X = np.ones((1, 4), np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_keys_from_a_clients_plugin(locked, kind):
    """How tritonclient adds credentials to every request."""

    class Key:
        def __call__(self, request):
            request.headers.update(bearer("runner"))

    with Client(kind, locked.grpc if kind.startswith("grpc") else locked.http) as client:
        client.register_plugin(Key())
        assert client.plugin() is not None
        np.testing.assert_array_equal(client.ask("double", "x", X).as_numpy("y"), 3 * X)
        with pytest.raises(InferenceServerException, match="'runner' lacks the scope 'read'"):
            client.get_model_metadata("double")
        with pytest.raises(InferenceServerException, match="'runner' lacks the scope 'infer' on model 'words'"):
            client.ask("words", "x", X)
        client.unregister_plugin()
        with pytest.raises(InferenceServerException, match="credentials are needed"):
            client.ask("double", "x", X)
