# SPDX-License-Identifier: Apache-2.0
"""transformers architectures (tiny, random weights) compiled from torch: dynamic batch and, where there is one, dynamic
sequence axis; equal to eager at two other shapes. Needs transformers; part of `make test-models`.

Torch's exporter by itself takes 36 of these 41. The ways past for the others: Mixtral's grouped product has a translation
of ours, Mamba's recurrence becomes a Scan, T5, Swin and RTDetr export when sizes may be compared in general
(backed_size_oblivious, see WAYS in the front end), VITS needs aten._is_all_true and data-dependent lengths.
"""

import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from architectures import ARCHITECTURES  # noqa: E402

import fastinfer as fi  # noqa: E402

EXAMPLE = (2, 8)
OTHERS = ((1, 5), (3, 11))
RELATIVE = 1e-4


def tensors(output):
    return [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_matches_eager(name):
    transformers.logging.set_verbosity_error()
    architecture = ARCHITECTURES[name]
    module = architecture.build()
    example = architecture.example(*EXAMPLE)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # a static export would be said by a warning
        model = fi.compile(module, example, dynamic_shapes=architecture.dynamic_shapes(example))
    for batch, length in OTHERS:
        torch.manual_seed(batch)
        inputs = architecture.example(batch, length)
        with torch.no_grad():
            want = module(**inputs)
        got = model(**{k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)})
        assert type(got) is type(want)
        for g, w in zip(tensors(got), tensors(want), strict=True):
            assert g.shape == w.shape and g.dtype == w.dtype
            scale = w.abs().max()
            assert scale > 1e-3, "an output that is all but zero shows nothing"
            assert ((g - w).abs().max() <= RELATIVE * scale).item(), f"{(g - w).abs().max() / scale:.1e}"
