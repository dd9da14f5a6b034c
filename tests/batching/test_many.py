# SPDX-License-Identifier: Apache-2.0
"""Several feeds in one call: errors, files, and the packed form with sequences that nobody asked for."""

import numpy as np
import pytest
from small_encoder import compiled, feeds, same

import fastinfer as fi
from fastinfer import _core
from fastinfer.batching.packing import FILLER, PackedForm, fillers
from fastinfer.cuda.buckets import bucket


def test_run_many_raises_the_first_error_and_run_each_gives_all(model):
    given = [*feeds(2), {"ids": np.full((1, 3), 99)}, {"other": np.zeros(1)}]
    with pytest.raises(fi.FastinferError) as error:
        model.run_many(given)
    assert "in feed 2 of 4" in getattr(error.value, "__notes__", ["in feed 2 of 4"])  # notes: Python 3.11
    each = model.run_each(given)
    assert [isinstance(e, Exception) for e in each] == [False, False, True, True]
    same(each[1], model.run(given[1]))
    assert model.run_many([]) == []


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    loaded = fi.load(tmp_path / "m.safetensors")
    assert loaded.packing == "" and loaded._many.packed() is not None
    given = feeds(6)
    for got, f in zip(loaded.run_many(given), given):
        same(got, model.run(f))


def native_executor(model):
    return _core.Executor(model._program.packed_native(model._native), 1)


def test_made_up_sequences_change_nothing(model):
    """A form that only takes bucket sizes gives each feed the bits of one that takes all."""
    form = PackedForm(model._program.packed, native_executor(model), model._program.graph.inputs, bucket)
    seen, run = set(), form.executor.run

    class Seen:
        def run(self, arrays):
            seen.add(tuple(a.shape for a in arrays))
            return run(arrays)

    form.executor = Seen()
    for count in range(1, 12):
        arrays = [model._binding.named(f) for f in feeds(count)]
        for got, f in zip(form.run(arrays, [form.extent(a) for a in arrays]), feeds(count)):
            for y, expected in zip(got, model.run(f).values(), strict=True):
                np.testing.assert_array_equal(y, expected)
    assert all(bucket(n) == n for shapes in seen for shape in shapes for n in shape[:2] if len(shapes) > 1)


@pytest.mark.parametrize("tokens, sequences", [(1, 1), (9, 1), (9, 9), (130, 3), (1000, 17), (4096, 33)])
def test_made_up_sequences_fill_buckets(tokens, sequences):
    own = fillers(tokens, sequences, bucket)
    assert (own > 0).all() and own.max(initial=0) <= 2 * FILLER
    assert bucket(tokens + own.sum()) == tokens + own.sum() and (sequences + len(own)).bit_count() == 1


def test_feeds_that_the_model_refuses_are_not_packed(model):
    """Lengths outside the range that the model states, rows that disagree, other types: each goes alone, and says why."""
    notes, ports = model._program.packed, [{**model._program.graph.inputs[0], "ranges": {"t": [2, 8]}}]
    form = PackedForm(notes, native_executor(model), ports)
    lengths = {n: form.extent([np.zeros((1, n), np.int64)]) is not None for n in (0, 1, 2, 8, 9)}
    assert lengths == {0: False, 1: False, 2: True, 8: True, 9: False}
    for wrong in (np.zeros((0, 3), np.int64), np.zeros((1, 3), np.int32), np.zeros(3, np.int64), None):
        assert form.extent([wrong]) is None


def test_a_packed_form_that_cannot_run_is_given_up():
    other = compiled()
    form = other._many.packed()

    class Broken:
        def run(self, arrays):
            raise fi.UnsupportedError("no native form")

    form.executor = Broken()
    given = feeds(3)
    for got, f in zip(other.run_many(given), given):
        same(got, other.run(f))
    assert other.packing == "no native form" and other._many.packed() is None
