//! Weights on their way from a checkpoint to the device, some rows at a time.
//!
//! A checkpoint has a matrix as `[d_out, d_in]` and the kernels read `[d_in, d_out]`, so what comes in as rows is kept as
//! columns.

use burn::backend::{Backend, Dispatch, backend_extension};
use burn::tensor::{Tensor, TensorData};

use super::{Weight, WeightPrimitive};

/// The operation that fills a weight.
#[backend_extension(Flex: cfg(feature = "cpu"), Cube: cfg(feature = "webgpu"))]
pub trait PlaceOps: Backend {
    /// The same weight with its columns from `first` on replaced: `rows [count, d_in]`, of the weight's type, and where it
    /// is quantized their `scales [count]`. Afterwards the host's copy of the rows is gone.
    ///
    /// Until every column was placed the weight is of no other use: a backend lays it out as its `linear` likes to read it.
    fn placed(
        #[extension_type] weight: WeightPrimitive<Self>,
        rows: TensorData,
        scales: Vec<f32>,
        first: usize,
    ) -> WeightPrimitive<Self>;
}

/// See [`PlaceOps::placed`].
pub fn placed(weight: Weight, rows: TensorData, scales: Vec<f32>, first: usize) -> Weight {
    let weight = match weight {
        Weight::Full(w) => WeightPrimitive::Full(w.into_dispatch()),
        Weight::Half(w) => WeightPrimitive::Half(w.into_dispatch()),
        Weight::Quantized { values, scales } => WeightPrimitive::Quantized {
            values: values.into_dispatch(),
            scales: scales.into_dispatch(),
        },
    };
    match <Dispatch as PlaceOps>::placed(weight, rows, scales, first) {
        WeightPrimitive::Full(w) => Weight::Full(Tensor::from_dispatch(w)),
        WeightPrimitive::Half(w) => Weight::Half(Tensor::from_dispatch(w)),
        WeightPrimitive::Quantized { values, scales } => Weight::Quantized {
            values: Tensor::from_dispatch(values),
            scales: Tensor::from_dispatch(scales),
        },
    }
}

#[cfg(feature = "cpu")]
mod cpu {
    use burn::backend::flex::{FlexTensor, Layout};
    use burn::backend::ops::FloatTensorOps;
    use burn::backend::{Flex, TensorMetadata};
    use burn::tensor::{Element, Shape, TensorData};
    use half::f16;

    use super::{PlaceOps, WeightPrimitive};

    impl PlaceOps for Flex {
        fn placed(
            weight: WeightPrimitive<Self>,
            rows: TensorData,
            row_scales: Vec<f32>,
            first: usize,
        ) -> WeightPrimitive<Self> {
            match weight {
                WeightPrimitive::Full(weight) => {
                    WeightPrimitive::Full(as_rows(weight, slice(&rows), first))
                }
                WeightPrimitive::Half(mut weight) => {
                    let width = weight.shape()[1];
                    as_columns::<f16>(weight.storage_mut(), width, slice(&rows), first);
                    WeightPrimitive::Half(weight)
                }
                WeightPrimitive::Quantized {
                    mut values,
                    mut scales,
                } => {
                    let width = values.shape()[1];
                    as_columns::<i8>(values.storage_mut(), width, slice(&rows), first);
                    as_columns::<f32>(scales.storage_mut(), width, &row_scales, first);
                    WeightPrimitive::Quantized { values, scales }
                }
            }
        }
    }

    fn slice<E: Element>(rows: &TensorData) -> &[E] {
        rows.as_slice().expect("rows have the type of their weight")
    }

    /// Leaves f32 rows as they came, behind a transposed view: the matmul reads either way as quickly, and nothing has to
    /// widen these first.
    fn as_rows(weight: FlexTensor, rows: &[f32], first: usize) -> FlexTensor {
        let shape = weight.shape();
        let (d_in, d_out) = (shape[0], shape[1]);
        debug_assert!(weight.is_unique(), "a shared weight would be copied");
        let mut weight = weight.with_layout(Layout::contiguous(Shape::new([d_out, d_in])));
        let values: &mut [f32] = weight.storage_mut();
        values[first * d_in..][..rows.len()].copy_from_slice(rows);
        Flex::float_swap_dims(weight, 0, 1)
    }

    /// Writes equally long rows as columns of `values`, whose rows have the length `width`.
    fn as_columns<E: Copy>(values: &mut [E], width: usize, rows: &[E], first: usize) {
        let length = values.len() / width;
        let count = rows.len() / length;
        for (i, line) in values.chunks_exact_mut(width).enumerate() {
            for (r, value) in line[first..first + count].iter_mut().enumerate() {
                *value = rows[r * length + i];
            }
        }
    }
}

#[cfg(feature = "webgpu")]
mod webgpu {
    use burn::backend::TensorMetadata;
    use burn::cubecl::prelude::CubeDim;
    use burn::cubecl::server::KernelArguments;
    use burn::tensor::{Bytes, TensorData};
    use burn_wgpu::{CubeBackend, CubeTensor, SourceKernel};

    use super::super::webgpu::grid;
    use super::super::wgsl::{Columns, TILE_GROUP};
    use super::{PlaceOps, WeightPrimitive};

    impl PlaceOps for CubeBackend {
        fn placed(
            weight: WeightPrimitive<Self>,
            rows: TensorData,
            row_scales: Vec<f32>,
            first: usize,
        ) -> WeightPrimitive<Self> {
            let (rows, shape, _) = rows.into_parts();
            let count = shape[0];
            match weight {
                WeightPrimitive::Full(weight) => {
                    WeightPrimitive::Full(with_columns(weight, rows, first, count))
                }
                WeightPrimitive::Half(weight) => {
                    WeightPrimitive::Half(with_columns(weight, rows, first, count))
                }
                WeightPrimitive::Quantized { values, scales } => WeightPrimitive::Quantized {
                    values: with_columns(values, rows, first, count),
                    scales: with_columns(scales, Bytes::from_elems(row_scales), first, count),
                },
            }
        }
    }

    /// Uploads `count` rows and has them written into columns of `target`, which is contiguous.
    fn with_columns(target: CubeTensor, rows: Bytes, first: usize, count: usize) -> CubeTensor {
        let shape = target.shape();
        let width = shape[shape.num_dims() - 1];
        let kernel = Columns {
            length: (shape.num_elements() / width) as u32,
            width: width as u32,
            bits: 8 * target.dtype.size() as u32,
        };
        let words = (count as u32).div_ceil(32 / kernel.bits) + 1;
        let count_of_groups = grid(
            words.div_ceil(TILE_GROUP),
            kernel.length.div_ceil(TILE_GROUP),
        );
        let client = target.client.clone();
        let place = [first as u32, count as u32];
        let arguments = KernelArguments::new()
            .with_buffer(client.create(rows).binding())
            .with_buffer(client.create(Bytes::from_elems(place.to_vec())).binding())
            .with_buffer(target.handle.clone().binding());
        let dim = CubeDim::new_2d(TILE_GROUP, TILE_GROUP);
        client.launch(
            Box::new(SourceKernel::new(kernel, dim)),
            count_of_groups,
            arguments,
        );
        // The queue holds the rows until they are submitted. A failure taints the weight, and the read of any result
        // that it enters reports it.
        let _ = client.flush();
        target
    }
}
