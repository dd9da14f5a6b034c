# SPDX-License-Identifier: Apache-2.0
"""Keys, tokens, scopes and rates, with keys that are made here; every way in that must stay shut."""

import base64
import datetime
import json
import os
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import fastinfer as fi
from fastinfer.serve.access import Caller, Gate
from fastinfer.serve.access.keys import KeyFile, digest_of, new_key
from fastinfer.serve.access.rates import Rates
from fastinfer.serve.access.tokens import Issuer
from fastinfer.serve.errors import Kind, ServeError

ISSUER, AUDIENCE = "https://id.example", "fastinfer"


def key_file(path, rows, mode=0o600):
    path.write_text("\n".join("[[key]]\n" + "\n".join(f"{k} = {v}" for k, v in row.items()) for row in rows))
    path.chmod(mode)
    return path


def row(key, name="app", scopes='["infer"]', **fields):
    return {"name": json.dumps(name), "sha256": json.dumps(digest_of(key)), "scopes": scopes, **fields}


def refused(gate, kind, *args, **kwargs):
    with pytest.raises(ServeError) as error:
        gate.admit(*args, **kwargs)
    assert error.value.kind is kind
    return error.value


def test_keys(tmp_path):
    (one, digest), (other, _) = new_key(), new_key()
    assert digest == digest_of(one) and one != other and len(one) > 40
    path = key_file(tmp_path / "keys.toml", [row(one, models='["ocr-*"]'), row(other, "boss", '["admin", "read"]')])
    gate = Gate([KeyFile(path)])
    for headers in ({"api_key": [one]}, {"authorization": [f"Bearer {one}"]}, {"authorization": [f"bearer  {one} "]}):
        caller = gate.admit(**headers)
        assert caller.name == "app" and caller.may("infer", "ocr-det") and not caller.may("infer", "other")
        assert not caller.may("admin")
    caller.check("infer", "ocr-rec")
    for scope, model in (("infer", "other"), ("admin", "ocr-det"), ("metrics", "")):
        with pytest.raises(ServeError, match="lacks the scope") as error:
            caller.check(scope, model)
        assert error.value.kind is Kind.FORBIDDEN
    for wrong in ([one[:-1]], [one + "x"], [digest], [""], ["\udcff"], ["ключ"]):
        assert "not valid" in str(refused(gate, Kind.UNAUTHENTICATED, api_key=wrong))
    for wrong in (f"Basic {one}", one, "Bearer", "Bearer ", f"Bearer x{one}"):
        refused(gate, Kind.UNAUTHENTICATED, [wrong])
    refused(gate, Kind.UNAUTHENTICATED)
    refused(gate, Kind.UNAUTHENTICATED, api_key=[one, one])
    refused(gate, Kind.UNAUTHENTICATED, [f"Bearer {one}"], [one])
    assert all(one not in str(e) for e in [refused(gate, Kind.UNAUTHENTICATED, [f"Basic {one}"])])


def test_keys_are_read_again_and_a_broken_file_changes_nothing(tmp_path):
    (one, _), (other, _) = new_key(), new_key()
    path = key_file(tmp_path / "k.toml", [row(one)])
    gate = Gate([KeyFile(path)])
    key_file(path, [row(other)])
    os.utime(path, ns=(1, 1))
    assert gate.reload() == []
    assert gate.admit(api_key=[other]).name == "app"
    refused(gate, Kind.UNAUTHENTICATED, api_key=[one])
    path.write_text("nonsense")
    assert len(gate.reload()) == 1 and gate.admit(api_key=[other])


def test_keys_expire(tmp_path):
    key, _ = new_key()
    now = [datetime.datetime(2026, 12, 31, 23, tzinfo=datetime.timezone.utc).timestamp()]
    gate = Gate([KeyFile(key_file(tmp_path / "k", [row(key, expires="2027-01-01")]))], clock=lambda: now[0])
    assert gate.admit(api_key=[key])
    now[0] += 3600
    refused(gate, Kind.UNAUTHENTICATED, api_key=[key])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scopes": '["root"]'}, "no scope is called 'root'"),
        ({"scopes": "[]"}, "scopes needs a list"),
        ({"sha256": '"abc"'}, "64 hexadecimal digits"),
        ({"name": '""'}, "a name is needed"),
        ({"rate": "-1"}, "at least 0"),
        ({"rate": '"fast"'}, "need numbers"),
        ({"expires": '"soon"'}, "needed: a date"),
        ({"expires": "2027-01-01T00:00:00"}, "no time zone"),
        ({"scope": '["infer"]'}, "'scope' is unknown"),
    ],
)
def test_wrong_key_files(tmp_path, change, message):
    with pytest.raises(fi.InputError, match=message):
        KeyFile(key_file(tmp_path / "k", [{**row("x"), **change}]))


def test_key_files_that_others_may_write_or_that_share_a_key(tmp_path):
    with pytest.raises(fi.InputError, match="others than its owner"):
        KeyFile(key_file(tmp_path / "a", [row("x")], mode=0o666))
    with pytest.raises(fi.InputError, match="share a key"):
        KeyFile(key_file(tmp_path / "b", [row("x"), row("x", "again")]))
    with pytest.raises(fi.InputError, match="No such file"):
        KeyFile(tmp_path / "none")


# ------------------------------------------------------------------------------------------------------------- tokens


def number(n):
    return base64.urlsafe_b64encode(n.to_bytes((n.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()


class Provider:
    """An identity provider with one key of each kind."""

    def __init__(self, path):
        self.path = path
        self.keys = {
            "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate(),
        }
        self.write({alg: alg for alg in self.keys})

    def write(self, names):
        algorithms = {"RS256": jwt.algorithms.RSAAlgorithm, "ES256": jwt.algorithms.ECAlgorithm,
                      "EdDSA": jwt.algorithms.OKPAlgorithm}  # fmt: skip
        rows = [
            {**json.loads(algorithms[alg].to_jwk(self.keys[alg].public_key())), "kid": kid, "alg": alg}
            for alg, kid in names.items()
        ]
        self.path.write_text(json.dumps({"keys": rows}))

    def token(self, alg="RS256", kid=None, key=None, headers=None, **claims):
        now = int(time.time())
        body = {"iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "exp": now + 300, "scope": "infer read", **claims}
        body = {k: v for k, v in body.items() if v is not None}
        return jwt.encode(body, key or self.keys[alg], alg, {"kid": kid or alg, **(headers or {})})


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    return Provider(tmp_path_factory.mktemp("oidc") / "jwks.json")


@pytest.fixture
def gate(provider):
    provider.write({alg: alg for alg in provider.keys})
    return Gate(issuers=[Issuer(ISSUER, AUDIENCE, provider.path)])


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_tokens(gate, provider, alg):
    for _ in range(2):  # the second time it is remembered
        caller = gate.admit([f"Bearer {provider.token(alg)}"])
        assert caller.name == "user-1" and caller.scopes == {"infer", "read"} and caller.may("infer", "any")
    narrow = gate.admit([f"Bearer {provider.token(alg, scope=None, scp=['infer', 'root'], fastinfer_models=['a'])}"])
    assert narrow.scopes == {"infer"} and narrow.may("infer", "a") and not narrow.may("infer", "b")
    none = gate.admit([f"Bearer {provider.token(alg, scope='', fastinfer_models='*')}"])
    assert not none.scopes and none.models == ()


def test_tokens_that_must_not_pass(gate, provider):
    now = int(time.time())
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = jwt.algorithms.RSAAlgorithm.to_jwk(provider.keys["RS256"].public_key())
    good = provider.token()
    head, body, signature = good.split(".")
    wrong = {
        "expired": provider.token(exp=now - 60),
        "not yet": provider.token(nbf=now + 600),
        "issuer": provider.token(iss="https://evil.example"),
        "audience": provider.token(aud="someone-else"),
        "no expiry": provider.token(exp=None),
        "no subject": provider.token(sub=None),
        "other key": provider.token(key=other),
        "unknown key": provider.token(kid="gone"),
        "none": jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": now + 60}, "", "none", {"kid": "RS256"}),
        "confusion": jwt.encode(
            {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": now + 60},
            public.encode()[:32], "HS256", {"kid": "RS256"}),
        "algorithm of another key": provider.token("EdDSA", kid="RS256"),
        "cut": good[:-4],
        "no signature": f"{head}.{body}.",
        "changed": f"{head}.{body[:-2]}AA.{signature}",
        "three dots": "a.b.c",
        "long": "a" * 100_000,
    }  # fmt: skip
    for name, token in wrong.items():
        error = refused(gate, Kind.UNAUTHENTICATED, [f"Bearer {token}"])
        assert str(error) == "the credentials are not valid", name
    assert gate.admit([f"Bearer {provider.token(exp=now - 10)}"])  # within the leeway


def test_keys_of_a_provider_are_rotated(gate, provider):
    provider.keys["RS256"] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    refused(gate, Kind.UNAUTHENTICATED, [f"Bearer {provider.token(kid='second')}"])
    provider.write({"RS256": "second"})
    os.utime(provider.path, ns=(5, 5))
    assert gate.admit([f"Bearer {provider.token(kid='second')}"])
    refused(gate, Kind.UNAUTHENTICATED, [f"Bearer {provider.token('ES256')}"])


@pytest.mark.parametrize(
    ("change", "message"), [({"algorithms": ("HS256",)}, "not accepted"), ({"audience": ""}, "needs both")]
)
def test_wrong_issuers(provider, change, message):
    with pytest.raises(fi.InputError, match=message):
        Issuer(**{"issuer": ISSUER, "audience": AUDIENCE, "keys": provider.path, **change})


def test_key_documents_that_cannot_be_read(tmp_path):
    for text in ("", "[]", "{}", '{"keys": [{"kty": "RSA"}]}'):
        (tmp_path / "j").write_text(text)
        with pytest.raises(fi.InputError, match="key document"):
            Issuer(ISSUER, AUDIENCE, tmp_path / "j")


# -------------------------------------------------------------------------------------------------------------- rates


def test_rates():
    rates, slow = Rates(), Caller.of("slow", ["infer"], rate=2, burst=3)
    for _ in range(3):
        rates.check(slow, 10.0)
    with pytest.raises(ServeError) as error:
        rates.check(slow, 10.0)
    assert error.value.kind is Kind.RATE and error.value.retry_after == pytest.approx(0.5)
    rates.check(slow, 10.5)
    with pytest.raises(ServeError):
        rates.check(slow, 10.9)
    for _ in range(3):  # a long rest fills the bucket, and no more
        rates.check(slow, 1000.0)
    with pytest.raises(ServeError):
        rates.check(slow, 1000.0)
    for _ in range(1000):
        rates.check(Caller.of("free", ["infer"]), 0.0)


def test_rates_remember_a_bounded_number_of_callers():
    rates = Rates(most=10)
    for i in range(100):
        rates.check(Caller.of(f"c{i}", ["infer"], rate=1), float(i))
    assert len(rates._buckets) <= 10


def test_without_rules_everyone_may_everything_and_public_scopes_are_bounded(tmp_path):
    assert Gate().open and Gate().admit(["anything"]).may("admin")
    key, _ = new_key()
    gate = Gate([KeyFile(key_file(tmp_path / "k", [row(key)]))], public=frozenset({"read"}))
    assert gate.admit().may("read") and not gate.admit().may("infer")
    refused(gate, Kind.UNAUTHENTICATED, api_key=["wrong"])  # wrong credentials are not none
