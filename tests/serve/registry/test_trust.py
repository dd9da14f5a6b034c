# SPDX-License-Identifier: Apache-2.0
"""Whose signatures a server needs, and what happens to versions that serve when that changes."""

import asyncio

import pytest
from small_models import ones, request, save, scale

from fastinfer.errors import InputError
from fastinfer.serve.config import Config
from fastinfer.serve.errors import Kind, ServeError
from fastinfer.serve.registry import Registry
from fastinfer.serve.repository import releases, signing


@pytest.fixture
def signed(tmp_path):
    """(root, public key): versions 1 and 2 of m, signed; both are to be loaded."""
    public = signing.new_key(tmp_path / "key.pem")
    signer = signing.Signer(tmp_path / "key.pem")
    root = tmp_path / "root"
    root.mkdir()
    for factor in (2, 3):
        releases.push(root, "m", save(tmp_path / f"{factor}.onnx", scale(factor)), signer=signer)
    (root / "m" / "model.toml").write_text('versions = "all"\n')
    return root, public


def trusting(tmp_path, text):
    (tmp_path / "trust.toml").write_text(text)
    return signing.load_trust(tmp_path / "trust.toml")


async def answer(registry, version=""):
    return (await registry.infer(request("m", version=version, x=ones()))).outputs[0].array[0, 0]


def test_what_is_revoked_while_it_serves_ends_and_the_rest_goes_on(signed, tmp_path):
    root, public = signed

    async def main():
        registry = Registry(root, trust=trusting(tmp_path, f'keys = ["{public}"]'))
        assert not await registry.open()
        try:
            assert await answer(registry) == 3 and await answer(registry, "1") == 2
            registry.trust(trusting(tmp_path, f'keys = ["{public}"]\nrevoked = ["m/2"]'))
            failed = await registry.refresh()
            assert failed["m"].kind is Kind.FORBIDDEN and "revoked" in str(failed["m"])
            assert await answer(registry) == 2  # the default is what may still serve
            with pytest.raises(ServeError) as refused:
                await answer(registry, "2")
            assert refused.value.kind is Kind.UNAVAILABLE
            index = {e["version"]: e for e in await registry.repository_index()}
            assert index["1"]["state"] == "READY" and index["2"]["state"] in ("UNAVAILABLE", "UNLOADING")
            registry.trust(trusting(tmp_path, f'keys = ["{public}"]'))  # it was a mistake
            assert not await registry.refresh()
            assert await answer(registry, "2") == 3
        finally:
            await registry.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_broken_file_of_keys_refuses_to_start(signed, tmp_path):
    root, _ = signed
    (tmp_path / "bad.toml").write_text("keys = 'x'")
    for path in (tmp_path / "bad.toml", tmp_path / "absent.toml"):
        with pytest.raises(InputError, match=path.name):
            Config(root, trusted=path).trust()
    assert Config(root).trust() is None
