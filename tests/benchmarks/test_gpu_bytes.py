"""What is counted of a program compiled for a GPU: every kernel's bytes, those of loops as often as they turn."""

# Its module asks for the CPU before JAX starts, as all tests do.
from benchmarks import gpu_bytes
from tests.processes import python

PROGRAM = """
%fused (a: f32[2,3]) -> f32[2,3] {
  %a = f32[2,3]{1,0} parameter(0)
  ROOT %n = f32[2,3]{1,0} negate(%a)
}

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %twice = f32[8]{0} fusion(%x), kind=kLoop, calls=%other
}

ENTRY %main (p: f32[2,3]) -> f32[2,3] {
  %p = f32[2,3]{1,0} parameter(0)
  %conv = (f32[4]{0}, u8[100]{0}) custom-call(%p), custom_call_target="__cudnn$convForward"
  %wrapped_transpose.1 = f32[3,2]{1,0} fusion(%p), kind=kInput, calls=%fused
  %tuple = (s32[], f32[8]{0}) tuple(%p)
  %while = (s32[], f32[8]{0}) while(%tuple), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %loop.1 = f32[2,3]{1,0} fusion(%p, %conv), kind=kLoop, calls=%fused
}
"""


def test_kernels_are_counted_and_what_is_inside_them_is_not() -> None:
    found = gpu_bytes.counted(PROGRAM)
    assert found == {"convolutions": 24 + 16, "transposed": 48, "others": 5 * 64 + 24 + 24 + 16, "kernels": 3 + 5}


def test_without_a_compiler_for_cuda_it_says_what_to_install() -> None:
    hidden = "import sys; sys.modules['jax_plugins'] = None\n"
    code = hidden + "from benchmarks import gpu_bytes; gpu_bytes.described()"
    told = python("-c", code).stderr
    if "InputError" in told:  # a plug-in that is installed is found by its entry point all the same
        assert "pip install --no-deps jax-cuda13-pjrt==" in told and "no GPU is needed" in told
    else:
        assert not told
