// SPDX-License-Identifier: Apache-2.0
// torch asks a device's "guard" which device is current; a build without CUDA has none for cuda.
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

struct Guard : c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA> {
  c10::Device exchangeDevice(c10::Device) const override { return {c10::DeviceType::CUDA, 0}; }
  c10::Device getDevice() const override { return {c10::DeviceType::CUDA, 0}; }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard)

}  // namespace
