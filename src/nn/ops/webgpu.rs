//! [`Ops`] on WebGPU: one WGSL kernel for each operation.

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, TensorMetadata};
use burn::cubecl::prelude::{CubeCount, CubeDim, KernelId};
use burn::cubecl::server::KernelArguments;
use burn::tensor::Shape;
use burn_wgpu::{CubeBackend, CubeTensor, KernelSource, SourceKernel, SourceTemplate};

use super::wgsl::{
    Kept, LINEAR_GROUP, LINEAR_QUADS, Linear, Norm, ROW_GROUP, SelfAttention, Transposed,
};
use super::{Ops, ResidualPrimitive, WeightPrimitive};

impl Ops for CubeBackend {
    fn linear(
        x: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        residual: ResidualPrimitive<Self>,
        gelu: bool,
    ) -> FloatTensor<Self> {
        let mut dims = x.shape().to_vec();
        let d_in = dims.pop().unwrap_or(1);
        let rows: usize = dims.iter().product();
        let d_out = bias.shape()[0];
        dims.push(d_out);
        let kernel = Linear {
            d_in: d_in as u32,
            d_out: d_out as u32,
            weight: match weight {
                WeightPrimitive::Full(_) => Kept::Full,
                WeightPrimitive::Half(_) => Kept::Half,
                WeightPrimitive::Quantized { .. } => Kept::Quantized,
            },
            residual: matches!(residual, ResidualPrimitive::Rows(_)),
            gelu,
            tile_rows: Linear::tile_rows(rows as u32, d_out as u32),
        };
        let like = x.clone();
        let mut inputs = vec![x];
        match weight {
            WeightPrimitive::Full(weight) | WeightPrimitive::Half(weight) => inputs.push(weight),
            WeightPrimitive::Quantized { values, scales } => inputs.extend([values, scales]),
        }
        inputs.push(bias);
        if let ResidualPrimitive::Rows(residual) = residual {
            inputs.push(residual);
        }
        let columns = (d_out as u32).div_ceil(4 * LINEAR_QUADS);
        let count = grid(
            columns.div_ceil(LINEAR_GROUP.0),
            (rows as u32).div_ceil(kernel.tile_rows * LINEAR_GROUP.1),
        );
        launch(
            kernel,
            (LINEAR_GROUP.0, LINEAR_GROUP.1),
            count,
            inputs,
            &like,
            dims,
        )
    }

    fn norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let dims = x.shape().to_vec();
        let width = gain.shape()[0];
        let rows = dims.iter().product::<usize>() / width;
        let kernel = Norm {
            width: width as u32,
            eps: (eps as f32).to_bits(),
        };
        let like = x.clone();
        let count = row_grid(rows as u32);
        launch(
            kernel,
            (ROW_GROUP, 1),
            count,
            vec![x, gain, shift],
            &like,
            dims,
        )
    }

    fn self_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        let shape = qkv.shape();
        let (batch, tokens, width) = (shape[0], shape[1], shape[2] / 3);
        let kernel = SelfAttention {
            tokens: tokens as u32,
            heads: heads as u32,
            head_dim: (width / heads) as u32,
        };
        let like = qkv.clone();
        let count = CubeCount::Static(
            (tokens as u32).div_ceil(ROW_GROUP),
            heads as u32,
            batch as u32,
        );
        launch(
            kernel,
            (ROW_GROUP, 1),
            count,
            vec![qkv],
            &like,
            vec![batch, tokens, width],
        )
    }

    fn submitted(x: FloatTensor<Self>) -> FloatTensor<Self> {
        // A failure taints what it was about to write, and the read of any result reports it.
        let _ = x.client.flush();
        x
    }

    fn transposed(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let shape = x.shape();
        let (rows, columns) = (shape[0], shape[1]);
        let kernel = Transposed {
            rows: rows as u32,
            columns: columns as u32,
        };
        let like = x.clone();
        let count = grid((columns as u32).div_ceil(8), (rows as u32).div_ceil(8));
        launch(kernel, (8, 8), count, vec![x], &like, vec![columns, rows])
    }
}

fn grid(x: u32, y: u32) -> CubeCount {
    CubeCount::Static(x, y, 1)
}

/// Workgroups for independent rows, folded so that no dimension passes WebGPU's limit of 65,535.
fn row_grid(rows: u32) -> CubeCount {
    let groups = rows.div_ceil(ROW_GROUP);
    let x = groups.clamp(1, 65_535);
    grid(x, groups.div_ceil(x))
}

/// Runs `kernel` on contiguous `inputs`, bound in order and followed by the f32 output, which it returns.
fn launch<K: KernelSource>(
    kernel: K,
    group: (u32, u32),
    count: CubeCount,
    inputs: Vec<CubeTensor>,
    like: &CubeTensor,
    dims: Vec<usize>,
) -> CubeTensor {
    let client = like.client.clone();
    let shape = Shape::from(dims);
    let handle = client.empty(shape.num_elements() * size_of::<f32>());
    let output = CubeTensor::new_contiguous(
        client.clone(),
        like.device.clone(),
        shape,
        handle,
        DType::F32,
    );
    let mut arguments = KernelArguments::new();
    for input in inputs {
        let input = burn_wgpu::into_contiguous(input);
        arguments = arguments.with_buffer(input.handle.binding());
    }
    arguments = arguments.with_buffer(output.handle.clone().binding());
    let dim = CubeDim::new_2d(group.0, group.1);
    client.launch(Box::new(SourceKernel::new(kernel, dim)), count, arguments);
    output
}

macro_rules! kernel_source {
    ($($kernel:ty),*) => {$(
        impl KernelSource for $kernel {
            fn source(&self) -> SourceTemplate {
                SourceTemplate::new(self.wgsl())
            }

            fn id(&self) -> KernelId {
                KernelId::new::<Self>().info(self.clone())
            }

            fn lang(&self) -> &'static str {
                "wgsl"
            }
        }
    )*};
}
kernel_source!(Linear, Norm, SelfAttention, Transposed);
