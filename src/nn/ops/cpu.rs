//! [`Ops`] on the CPU: burn-flex's matmul, with everything that follows it in one pass over the result.

use burn::backend::ops::{FloatTensorOps, IntTensorOps};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, FloatDType, TensorMetadata};
use burn::tensor::Shape;

use super::gelu::gelu;
use super::{Ops, ResidualPrimitive, WeightPrimitive};

impl Ops for Flex {
    fn linear(
        x: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        residual: ResidualPrimitive<Self>,
        with_gelu: bool,
    ) -> FloatTensor<Self> {
        let mut dims = x.shape().to_vec();
        let d_in = dims.pop().unwrap_or(1);
        let rows: usize = dims.iter().product();
        let d_out = bias.shape()[0];
        dims.push(d_out);

        let weight = match weight {
            WeightPrimitive::Full(weight) => weight,
            WeightPrimitive::Half(weight) => Self::float_cast(weight, FloatDType::F32),
            WeightPrimitive::Quantized { values, scales } => {
                let scales = Self::float_reshape(scales, Shape::new([1, d_out]));
                Self::float_mul(Self::int_into_float(values, FloatDType::F32), scales)
            }
        };
        let x = Self::float_reshape(x, Shape::new([rows, d_in]));
        let mut y = Self::float_matmul(x, weight);

        let bias = bias.to_contiguous();
        let bias: &[f32] = &bias.storage()[..d_out];
        let values: &mut [f32] = y.storage_mut();
        for row in values.chunks_exact_mut(d_out) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            if with_gelu {
                row.iter_mut().for_each(|y| *y = gelu(*y));
            }
        }
        if let ResidualPrimitive::Rows(residual) = residual {
            let count = residual.shape().num_elements();
            let residual = residual.to_contiguous();
            let residual: &[f32] = &residual.storage()[..count];
            for block in values.chunks_exact_mut(count) {
                block.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
            }
        }
        Self::float_reshape(y, Shape::from(dims))
    }
}
