//! A fully connected layer.

use burn::tensor::Tensor;

use super::ops::{self, Weight};

/// `y = x · W + b`, with `W` kept in any [`Precision`](crate::device::Precision).
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[d_in, d_out]`.
    pub weight: Weight,
    /// `[d_out]`.
    pub bias: Tensor<1>,
}

impl Linear {
    /// `[.., d_in]` → `[.., d_out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, &self.weight, &self.bias, None, false)
    }

    /// The same, plus `residual`: `[.., d_out]`, or with a leading axis of 1 that is repeated over the batch.
    pub fn forward_onto<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        ops::linear(x, &self.weight, &self.bias, Some(residual), false)
    }

    /// The same, followed by the exact (erf) GELU.
    pub fn forward_gelu<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        ops::linear(x, &self.weight, &self.bias, None, true)
    }
}
