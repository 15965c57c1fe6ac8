//! Where the numbers are computed, and how weights are kept there.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// burn-flex, on one thread in a browser.
    Cpu,
    /// burn-wgpu with this crate's own kernels.
    WebGpu,
}

impl Backend {
    /// The backend that this build contains.
    pub const BUILT: Self = if cfg!(feature = "webgpu") {
        Self::WebGpu
    } else {
        Self::Cpu
    };

    /// The backend that `device` belongs to.
    pub fn of(device: &Device) -> Self {
        match device.as_dispatch() {
            #[cfg(feature = "cpu")]
            burn::backend::DispatchDevice::Flex(_) => Self::Cpu,
            #[allow(
                unreachable_patterns,
                reason = "which backends are missing depends on the features"
            )]
            _ => Self::WebGpu,
        }
    }

    /// The name used by the TypeScript side: `"cpu"` or `"webgpu"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::WebGpu => "webgpu",
        }
    }

    /// Acquires the device.
    ///
    /// # Errors
    /// [`Error::NoWebGpu`] when there is no adapter or it refuses a device; [`Error::Unsupported`] when this build does
    /// not contain the backend.
    pub async fn device(self) -> Result<Device> {
        match self {
            #[cfg(feature = "cpu")]
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "webgpu")]
            Self::WebGpu => Device::wgpu_options()
                .init_async()
                .await
                .map_err(|e| Error::NoWebGpu(format!("WebGPU gave no device: {e}"))),
            #[allow(
                unreachable_patterns,
                reason = "which backends are missing depends on the features"
            )]
            other => Err(Error::Unsupported(format!(
                "this build does not contain the {} backend",
                other.name()
            ))),
        }
    }
}

static SUBGROUPS: AtomicBool = AtomicBool::new(false);

/// Lets WebGPU kernels use subgroups. To be called once the device was made with the feature "subgroups", which wgpu does not know of in a
/// browser, and not elsewhere: outside of browsers kernels go through naga, which refuses the line that enables them.
pub fn use_subgroups() {
    SUBGROUPS.store(true, Ordering::Relaxed);
}

/// Whether [`use_subgroups`] was called.
#[cfg(feature = "webgpu")]
pub(crate) fn has_subgroups() -> bool {
    SUBGROUPS.load(Ordering::Relaxed)
}

/// A tensor's values on the host, row-major.
///
/// # Errors
/// [`Error::Internal`] when the device fails.
pub async fn read_values<const D: usize>(x: Tensor<D>) -> Result<Vec<f32>> {
    let data = x
        .into_data_async()
        .await
        .map_err(|e| Error::Internal(format!("the device did not return the result: {e}")))?;
    data.try_into_vec::<f32>()
        .map_err(|e| Error::Internal(format!("the result has another type: {e:?}")))
}

/// How weight matrices are kept in memory. Arithmetic is f32 in every case; norms, biases and positions stay f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Four bytes a weight.
    #[default]
    F32,
    /// Two bytes a weight: IEEE half precision.
    F16,
    /// One byte a weight: symmetric int8 with one scale per output row.
    Q8,
}

impl Precision {
    /// The name used by the TypeScript side: `"f32"`, `"f16"` or `"q8"`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    /// Bytes that a weight matrix of `d_in × d_out` occupies.
    pub fn bytes(self, d_in: usize, d_out: usize) -> usize {
        match self {
            Self::F32 => 4 * d_in * d_out,
            Self::F16 => 2 * d_in * d_out,
            Self::Q8 => d_in * d_out + 4 * d_out,
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::F32, Self::F16, Self::Q8]
            .into_iter()
            .find(|p| p.name() == name)
            .ok_or_else(|| {
                Error::BadInput(format!(
                    "dtype \"{name}\" is unknown; use \"f32\", \"f16\" or \"q8\""
                ))
            })
    }
}
