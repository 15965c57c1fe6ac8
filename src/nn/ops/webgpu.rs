//! [`Ops`] on WebGPU: one WGSL kernel for each operation.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{DType, TensorMetadata};
use burn::cubecl::prelude::{CubeCount, CubeDim, KernelId};
use burn::cubecl::server::{Handle, KernelArguments};
use burn::tensor::Shape;
use burn_wgpu::{CubeBackend, CubeTensor, KernelSource, SourceKernel, SourceTemplate};

use super::block::{self, BlockForm, BlockPrimitive};
use super::wgsl::{
    ATTENTION_GROUP, Columns, Kept, LINEAR_GROUP, LINEAR_QUADS, Linear, Norm, ROTATE_GROUP,
    ROW_GROUP, Rotate, SelfAttention, SharedRows,
};
use super::wgsl_backward::{
    Activate, AdamWStep, AddSquares, Attend, AttendKeys, AttendQuery, AttentionKeys,
    AttentionQueries, Averaged, BatchNorm, BatchNormGradients, Clipped, Halved, LinearInput,
    LinearParameters, MultiplyAdd, NormColumns, NormRows, Pooled, RowDistance, Scaled, Select,
    SelectGradient, Sum,
};
use super::{
    Activation, AttentionMask, Ops, ResidualPrimitive, WeightPrimitive, product_sizes,
    webgpu_backward,
};
use crate::device::has_subgroups;
use crate::objective::distance::Distance;

impl Ops for CubeBackend {
    fn linear(
        x: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        residual: ResidualPrimitive<Self>,
        gelu: bool,
    ) -> FloatTensor<Self> {
        let d_out = bias.shape()[0];
        let (rows, d_in, dims) = product_sizes(&x.shape(), d_out);
        let kernel = Linear {
            d_in: d_in as u32,
            d_out: d_out as u32,
            weight: kept(&weight),
            residual: matches!(residual, ResidualPrimitive::Rows(_)),
            gelu,
            tile_rows: Linear::tile_rows(rows as u32, d_out as u32),
            lanes: lanes(&x),
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

    fn self_attention(
        qkv: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
    ) -> FloatTensor<Self> {
        let shape = qkv.shape();
        let (batch, tokens, width) = (shape[0], shape[1], shape[2] / 3);
        let (kernel, count) = attention([batch, tokens, width], heads, mask, false);
        let like = qkv.clone();
        launch(
            kernel,
            (ATTENTION_GROUP, 1),
            count,
            vec![qkv],
            &like,
            vec![batch, tokens, width],
        )
    }

    fn attend(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        webgpu_backward::attend(query, kv, heads)
    }

    fn rotate(
        qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        heads: usize,
        back: bool,
    ) -> FloatTensor<Self> {
        let dims = qkv.shape().to_vec();
        let head_dim = dims[2] / 3 / heads;
        let kernel = Rotate {
            heads: heads as u32,
            head_dim: head_dim as u32,
            back,
        };
        let like = qkv.clone();
        let rows = dims[0] * dims[1];
        let count = grid(
            ((dims[2] / 2) as u32).div_ceil(ROTATE_GROUP.0),
            (rows as u32).div_ceil(ROTATE_GROUP.1),
        );
        launch(kernel, ROTATE_GROUP, count, vec![qkv, table], &like, dims)
    }

    fn activate(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        webgpu_backward::activate(x, activation)
    }

    fn select(
        x: FloatTensor<Self>,
        rest: ResidualPrimitive<Self>,
        added: ResidualPrimitive<Self>,
        index: IntTensor<Self>,
        _offsets: IntTensor<Self>,
        _places: IntTensor<Self>,
        batch: usize,
    ) -> FloatTensor<Self> {
        webgpu_backward::select(x, rest, added, index, batch)
    }

    fn distance(
        prediction: FloatTensor<Self>,
        target: FloatTensor<Self>,
        distance: Distance,
    ) -> FloatTensor<Self> {
        webgpu_backward::distance(prediction, target, distance)
    }

    fn sum(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        webgpu_backward::sum(a, b)
    }

    fn multiply_add(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self> {
        webgpu_backward::multiply_add(a, b, c)
    }

    fn reshaped(x: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self> {
        Self::float_reshape(x, Shape::from(shape))
    }

    fn halved(x: FloatTensor<Self>) -> FloatTensor<Self> {
        webgpu_backward::halved(x)
    }

    fn pooled(x: FloatTensor<Self>) -> FloatTensor<Self> {
        webgpu_backward::pooled(x)
    }

    fn batch_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        webgpu_backward::batch_norm(x, gain, shift, eps)
    }

    fn recomputed_block(
        x: FloatTensor<Self>,
        parameters: BlockPrimitive<Self>,
        rotary: ResidualPrimitive<Self>,
        form: BlockForm,
    ) -> FloatTensor<Self> {
        block::forward::<Self>(x, parameters, rotary, form)
    }

    fn with_gradient(x: FloatTensor<Self>, _gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        webgpu_backward::zero(&x)
    }
}

/// The form in which a weight is kept.
pub(super) fn kept(weight: &WeightPrimitive<CubeBackend>) -> Kept {
    match weight {
        WeightPrimitive::Full(_) => Kept::Full,
        WeightPrimitive::Half(_) => Kept::Half,
        WeightPrimitive::Quantized { .. } => Kept::Quantized,
    }
}

/// How many invocations share the rows of a product's input on the device of `like`.
pub(super) fn lanes(like: &CubeTensor) -> u32 {
    if !has_subgroups() {
        return 1;
    }
    let hardware = &like.client.properties().hardware;
    SharedRows::lanes(hardware.plane_size_min, hardware.plane_size_max)
}

pub(super) fn grid(x: u32, y: u32) -> CubeCount {
    CubeCount::Static(x, y, 1)
}

/// Workgroups for independent rows, folded so that no dimension passes WebGPU's limit of 65,535.
pub(super) fn row_grid(rows: u32) -> CubeCount {
    let groups = rows.div_ceil(ROW_GROUP);
    let x = groups.clamp(1, 65_535);
    grid(x, groups.div_ceil(x))
}

/// The kernel of attention for an output of `[batch, tokens, width]`, and its workgroups.
pub(super) fn attention(
    [batch, tokens, width]: [usize; 3],
    heads: usize,
    mask: AttentionMask,
    sums: bool,
) -> (SelfAttention, CubeCount) {
    let (queries, groups) = attention_groups(tokens, heads, batch);
    let kernel = SelfAttention {
        heads: heads as u32,
        head_dim: (width / heads) as u32,
        mask,
        sums,
        queries,
    };
    (kernel, groups)
}

/// Tokens of an invocation of attention or its gradients, and the workgroups for all of each head of each sequence. Four tokens where
/// that leaves enough invocations: what is loaded of the others serves all of them.
pub(super) fn attention_groups(tokens: usize, heads: usize, batch: usize) -> (u32, CubeCount) {
    let own = if tokens.div_ceil(4) * heads * batch >= 128 {
        4
    } else {
        1
    };
    let groups = (tokens as u32).div_ceil(own * ATTENTION_GROUP);
    (own, CubeCount::Static(groups, heads as u32, batch as u32))
}

/// An f32 tensor beside `like`, of no particular contents.
pub(super) fn empty(like: &CubeTensor, dims: Vec<usize>) -> CubeTensor {
    let shape = Shape::from(dims);
    let handle = like.client.empty(shape.num_elements() * size_of::<f32>());
    in_buffer(handle, like, shape)
}

/// An f32 tensor of the shape of `like`, of no particular contents and as [`super::lasting`].
pub(super) fn lasting(like: &CubeTensor) -> CubeTensor {
    let shape = like.shape();
    let bytes = shape.num_elements() * size_of::<f32>();
    let handle = like
        .client
        .memory_persistent_allocation(bytes, |bytes| like.client.empty(bytes));
    in_buffer(handle, like, shape)
}

fn in_buffer(handle: Handle, like: &CubeTensor, shape: Shape) -> CubeTensor {
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        shape,
        handle,
        DType::F32,
    )
}

/// Runs `kernel` on contiguous `inputs`, bound in order and followed by the f32 output, which it returns.
pub(super) fn launch<K: KernelSource>(
    kernel: K,
    group: (u32, u32),
    count: CubeCount,
    inputs: Vec<CubeTensor>,
    like: &CubeTensor,
    dims: Vec<usize>,
) -> CubeTensor {
    let [output] = launch_into(kernel, group, count, inputs, [empty(like, dims)]);
    output
}

/// Runs `kernel` on contiguous `inputs`, bound in order and followed by `outputs`, which it returns.
pub(super) fn launch_into<K: KernelSource, const N: usize>(
    kernel: K,
    group: (u32, u32),
    count: CubeCount,
    inputs: Vec<CubeTensor>,
    outputs: [CubeTensor; N],
) -> [CubeTensor; N] {
    let client = outputs[0].client.clone();
    let mut arguments = KernelArguments::new();
    for input in inputs {
        let input = burn_wgpu::into_contiguous(input);
        arguments = arguments.with_buffer(input.handle.binding());
    }
    for output in &outputs {
        arguments = arguments.with_buffer(output.handle.clone().binding());
    }
    let dim = CubeDim::new_2d(group.0, group.1);
    client.launch(Box::new(SourceKernel::new(kernel, dim)), count, arguments);
    outputs
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
kernel_source!(
    Columns,
    Linear,
    Norm,
    Rotate,
    SelfAttention,
    Activate,
    AdamWStep,
    AddSquares,
    Attend,
    AttendKeys,
    AttendQuery,
    AttentionKeys,
    AttentionQueries,
    Averaged,
    BatchNorm,
    BatchNormGradients,
    Clipped,
    Halved,
    LinearInput,
    LinearParameters,
    MultiplyAdd,
    NormColumns,
    NormRows,
    Pooled,
    RowDistance,
    Scaled,
    Select,
    SelectGradient,
    Sum
);
