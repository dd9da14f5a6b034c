# SPDX-License-Identifier: Apache-2.0
"""A small test or two of each family of kernels: what CI runs on the pretended device, and compute-sanitizer on a real one
(`python tests/cuda/pretend/small.py` prints them for tools/gpu.sh)."""

from pathlib import Path

CUDA = Path(__file__).parents[1]
SMALL = """
attention/test_cuda_attention.py::test_value_size
attention/test_cuda_attention_packed.py::test_reduce_edges
conv/test_conv_kernel.py::test_transposed
conv/test_bind_conv.py::test_auto_pad
gather/test_cuda_gather.py::test_out_of_range_reads_an_end
gather/test_cuda_gather.py::test_configurations_agree
gemm/test_gemm_kernels.py::test_no_k
gemm/test_gemm_kernels.py::test_half_outputs
gemm/test_gemm_quantize.py::test_zeros_and_nan
movement/test_cuda_movement.py::test_concat_with_itself
movement/test_cuda_movement.py::test_pad_that_cuts_and_pad_of_some_axes
native/test_mlp.py::test_on_a_device
native/test_ragged.py::test_on_a_device
norm/test_cuda_norms.py::test_softmax_edges
norm/test_cuda_norm_binders.py::test_skip_layer_norm
pointwise/test_cuda_programs.py::test_configurations_agree_bit_by_bit
pool/test_pool_kernel.py::test_nan_stays
pool/test_bind_pool.py::test_same_lower
quantized/test_cuda_qconv.py::test_conv_integer
quantized/test_cuda_qmatmul.py::test_transposed_a
reduce/test_cuda_reduce.py::test_axes_left_out
rnn/test_cuda_rnn.py::test_bits_do_not_depend_on_the_batch
torch_ops/test_contrib.py
weight_only/test_weight_only.py::test_a_row_does_not_depend_on_the_others
test_ends.py::test_products_round_their_operands_in_a_step
test_ends.py::test_outputs_under_another_shape_and_read_again
test_siblings.py::test_weights_lie_in_memory_once
test_runtime.py::test_what_comes_out_is_the_callers
""".split()
# Only compile, or ask for whole models: minutes in a pretended device's time, and so in its slow run alone.
ALONE = {
    "test_ahead.py",
    "test_sm90.py",
    "test_architectures.py",
    "test_models.py",
    "test_same_as_cpu.py",
    "test_shipped.py",
}
# Nothing of these runs on a device: the server and the command line, the backend's cases (minutes), and this.
ELSEWHERE = {"front", "dynamic", "pretend"}

if __name__ == "__main__":
    print("\n".join(str(CUDA / name) for name in SMALL))
