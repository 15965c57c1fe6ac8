//! [`BackwardOps`] and [`UpdateOps`] on WebGPU.

use burn::backend::TensorMetadata;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::DType;
use burn_wgpu::{CubeBackend, CubeTensor};

use super::backward::BackwardOps;
use super::update::{SQUARE_LANES, UpdateOps};
use super::webgpu::{
    attention, attention_groups, empty, grid, kept, lanes, lasting, launch, launch_into, row_grid,
};
use super::wgsl::{ATTENTION_GROUP, LINEAR_GROUP, Linear, ROW_GROUP};
use super::wgsl_backward::{
    Activate, AdamWStep, AddSquares, Attend, AttendKeys, AttendQuery, AttentionKeys,
    AttentionQueries, Averaged, BatchNorm, BatchNormGradients, Clipped, Halved, INPUT_COLUMNS,
    LinearInput, LinearParameters, MultiplyAdd, NormColumns, NormRows, PARAMETER_QUADS, Pooled,
    Pooling, RowDistance, Scaled, Select, SelectGradient, Sum, distance_wgsl,
};
use super::{
    Activation, AttentionMask, ResidualPrimitive, WeightPrimitive, product_sizes, selected_shape,
};
use crate::objective::distance::Distance;

const ROWS: (u32, u32) = (ROW_GROUP, 1);

/// The width as rows of which the elements of a tensor are gone through when rows do not matter.
fn flat_width(x: &CubeTensor) -> u32 {
    if x.shape().num_elements().is_multiple_of(4) {
        4
    } else {
        1
    }
}

/// What takes the place of `olds`: themselves, and true, where nothing else holds any of them, else buffers of their own, and the
/// olds are among the `inputs`.
fn renewed<const N: usize>(
    inputs: &mut Vec<CubeTensor>,
    olds: [CubeTensor; N],
) -> (bool, [CubeTensor; N]) {
    if olds.iter().all(|old| old.can_mut() && old.is_contiguous()) {
        return (true, olds);
    }
    let outputs = olds.each_ref().map(lasting);
    inputs.extend(olds);
    (false, outputs)
}

fn width_of(x: &CubeTensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}

/// Invocations that write a quad each of rows of `width`.
fn quads_of(elements: usize, width: usize) -> u32 {
    (elements / width * width.div_ceil(4)) as u32
}

/// Runs a kernel that writes each quad of a new tensor of `dims` by an invocation of its own.
fn each_quad<K: burn_wgpu::KernelSource>(
    kernel: K,
    width: usize,
    inputs: Vec<CubeTensor>,
    dims: Vec<usize>,
) -> CubeTensor {
    let like = inputs[0].clone();
    let count = row_grid(quads_of(dims.iter().product(), width));
    launch(kernel, ROWS, count, inputs, &like, dims)
}

/// The forward operations that only training uses.
pub(super) fn attend(query: CubeTensor, kv: CubeTensor, heads: usize) -> (CubeTensor, CubeTensor) {
    let (batch, d) = (kv.shape()[0], query.shape()[0]);
    let kernel = Attend {
        heads: heads as u32,
        head_dim: (d / heads) as u32,
    };
    let outputs = [empty(&kv, vec![batch, d]), empty(&kv, vec![batch, heads])];
    let count = row_grid((batch * heads) as u32);
    let [y, sums] = launch_into(kernel, ROWS, count, vec![query, kv], outputs);
    (y, sums)
}

pub(super) fn activate(x: CubeTensor, activation: Activation) -> CubeTensor {
    let (width, dims) = (flat_width(&x), x.shape().to_vec());
    let kernel = Activate {
        width,
        activation,
        gradient: false,
    };
    each_quad(kernel, width as usize, vec![x], dims)
}

pub(super) fn select(
    x: CubeTensor,
    rest: ResidualPrimitive<CubeBackend>,
    added: ResidualPrimitive<CubeBackend>,
    index: CubeTensor,
    batch: usize,
) -> CubeTensor {
    let width = width_of(&x);
    let rows = index.shape()[0];
    let kernel = Select {
        width: width as u32,
        rest: matches!(rest, ResidualPrimitive::Rows(_)),
        added: matches!(added, ResidualPrimitive::Rows(_)),
    };
    let mut inputs = vec![x, index];
    for more in [rest, added] {
        if let ResidualPrimitive::Rows(rows) = more {
            inputs.push(rows);
        }
    }
    each_quad(kernel, width, inputs, selected_shape(rows, batch, width))
}

fn row_distance(width: usize, distance: Distance, gradient: bool) -> RowDistance {
    RowDistance {
        width: width as u32,
        function: distance_wgsl(distance),
        gradient,
    }
}

pub(super) fn distance(
    prediction: CubeTensor,
    target: CubeTensor,
    distance: Distance,
) -> CubeTensor {
    let width = width_of(&prediction);
    let rows = prediction.shape().num_elements() / width;
    let like = prediction.clone();
    launch(
        row_distance(width, distance, false),
        ROWS,
        row_grid(rows as u32),
        vec![prediction, target],
        &like,
        vec![rows],
    )
}

pub(super) fn sum(a: CubeTensor, b: CubeTensor) -> CubeTensor {
    let (width, dims) = (flat_width(&a), a.shape().to_vec());
    each_quad(Sum { width }, width as usize, vec![a, b], dims)
}

pub(super) fn multiply_add(
    a: CubeTensor,
    b: CubeTensor,
    c: ResidualPrimitive<CubeBackend>,
) -> CubeTensor {
    let (width, dims) = (width_of(&a), a.shape().to_vec());
    let mut inputs = vec![a, b];
    if let ResidualPrimitive::Rows(rows) = c {
        inputs.push(rows);
    }
    let kernel = MultiplyAdd {
        width: width as u32,
        added: inputs.len() > 2,
    };
    each_quad(kernel, width, inputs, dims)
}

pub(super) fn pooled(x: CubeTensor) -> CubeTensor {
    let [batch, tokens, width] = [x.shape()[0], x.shape()[1], x.shape()[2]];
    let kernel = Pooled {
        width: width as u32,
        tokens: tokens as u32,
        kind: Pooling::Mean,
    };
    each_quad(kernel, width, vec![x], vec![batch, width])
}

pub(super) fn batch_norm(
    x: CubeTensor,
    gain: CubeTensor,
    shift: CubeTensor,
    eps: f64,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let width = width_of(&x);
    let kernel = BatchNorm {
        width: width as u32,
        eps: (eps as f32).to_bits(),
    };
    let outputs = [
        empty(&x, x.shape().to_vec()),
        empty(&x, vec![width]),
        empty(&x, vec![width]),
    ];
    let columns = row_grid(width.div_ceil(4) as u32);
    let [y, mean, variance] = launch_into(kernel, ROWS, columns, vec![x, gain, shift], outputs);
    (y, mean, variance)
}

/// A tensor `[1]` of zero, made by nothing but its upload.
pub(super) fn halved(x: CubeTensor) -> CubeTensor {
    let shape = x.shape();
    let words = shape.num_elements().div_ceil(2);
    let output = CubeTensor::new_contiguous(
        x.client.clone(),
        x.device.clone(),
        shape,
        x.client.empty(words * size_of::<u32>()),
        DType::F16,
    );
    let [output] = launch_into(Halved, ROWS, row_grid(words as u32), vec![x], [output]);
    output
}

pub(super) fn zero(like: &CubeTensor) -> CubeTensor {
    let handle = like.client.create_from_slice(&0f32.to_le_bytes());
    let mut zero = empty(like, vec![1]);
    zero.handle = handle;
    zero
}

impl BackwardOps for CubeBackend {
    fn linear_input_gradient(
        dy: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let kept = kept(&weight);
        let (d_in, inputs) = match weight {
            WeightPrimitive::Full(w) | WeightPrimitive::Half(w) => (w.shape()[0], vec![w]),
            WeightPrimitive::Quantized { values, scales } => {
                (values.shape()[0], vec![values, scales])
            }
        };
        let (rows, d_out, dims) = product_sizes(&dy.shape(), d_in);
        let kernel = LinearInput {
            d_in: d_in as u32,
            d_out: d_out as u32,
            weight: kept,
            tile_rows: Linear::tile_rows(rows as u32, d_in as u32),
            lanes: lanes(&dy),
        };
        let count = grid(
            (d_in as u32)
                .div_ceil(INPUT_COLUMNS)
                .div_ceil(LINEAR_GROUP.0),
            (rows as u32).div_ceil(kernel.tile_rows * LINEAR_GROUP.1),
        );
        let like = dy.clone();
        let inputs = std::iter::once(dy).chain(inputs).collect();
        launch(kernel, LINEAR_GROUP, count, inputs, &like, dims)
    }

    fn linear_parameter_gradients(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (d_in, d_out) = (width_of(&x), width_of(&dy));
        let kernel = LinearParameters {
            d_in: d_in as u32,
            d_out: d_out as u32,
        };
        let groups =
            |width: usize, group: u32| (width as u32).div_ceil(4 * PARAMETER_QUADS).div_ceil(group);
        let count = grid(groups(d_out, LINEAR_GROUP.0), groups(d_in, LINEAR_GROUP.1));
        let outputs = [empty(&x, vec![d_in, d_out]), empty(&x, vec![d_out])];
        let [weight, bias] = launch_into(kernel, LINEAR_GROUP, count, vec![x, dy], outputs);
        (weight, bias)
    }

    fn repeated_gradient(dy: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self> {
        let width: usize = shape.iter().product();
        let kernel = Pooled {
            width: width as u32,
            tokens: (dy.shape().num_elements() / width) as u32,
            kind: Pooling::Sum,
        };
        each_quad(kernel, width, vec![dy], shape)
    }

    fn activate_gradient(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let (width, dims) = (flat_width(&x), x.shape().to_vec());
        let kernel = Activate {
            width,
            activation,
            gradient: true,
        };
        each_quad(kernel, width as usize, vec![x, dy], dims)
    }

    fn norm_gradients(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let width = width_of(&x);
        let rows = x.shape().num_elements() / width;
        let rows_kernel = NormRows {
            width: width as u32,
            eps: (eps as f32).to_bits(),
        };
        let outputs = [empty(&x, x.shape().to_vec()), empty(&x, vec![rows, 2])];
        let inputs = vec![x.clone(), gain, dy.clone()];
        let [dx, stats] = launch_into(rows_kernel, ROWS, row_grid(rows as u32), inputs, outputs);
        let outputs = [empty(&x, vec![width]), empty(&x, vec![width])];
        let [d_gain, d_shift] = launch_into(
            NormColumns {
                width: width as u32,
            },
            ROWS,
            row_grid(width.div_ceil(4) as u32),
            vec![x, dy, stats],
            outputs,
        );
        [dx, d_gain, d_shift]
    }

    fn self_attention_and_sums(
        qkv: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (batch, tokens, width) = (qkv.shape()[0], qkv.shape()[1], qkv.shape()[2] / 3);
        let (kernel, count) = attention([batch, tokens, width], heads, mask, true);
        let outputs = [
            empty(&qkv, vec![batch, tokens, width]),
            empty(&qkv, vec![batch, heads, tokens]),
        ];
        let [y, sums] = launch_into(kernel, (ATTENTION_GROUP, 1), count, vec![qkv], outputs);
        (y, sums)
    }

    fn self_attention_gradient(
        qkv: FloatTensor<Self>,
        y: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (batch, tokens, width) = (qkv.shape()[0], qkv.shape()[1], qkv.shape()[2] / 3);
        let [h, d] = [heads, width / heads].map(|size| size as u32);
        let outputs = [
            empty(&qkv, vec![batch, tokens, 3 * width]),
            empty(&qkv, vec![batch, heads, tokens]),
        ];
        let (own, groups) = attention_groups(tokens, heads, batch);
        let [gradient, delta] = launch_into(
            AttentionQueries {
                heads: h,
                head_dim: d,
                mask,
                queries: own,
            },
            (ATTENTION_GROUP, 1),
            groups.clone(),
            vec![qkv.clone(), y, sums.clone(), dy.clone()],
            outputs,
        );
        // Goes on in the same buffer: the first kernel wrote the queries' part of it.
        let [gradient] = launch_into(
            AttentionKeys {
                heads: h,
                head_dim: d,
                mask,
                keys: own,
            },
            (ATTENTION_GROUP, 1),
            groups,
            vec![qkv, sums, delta, dy],
            [gradient],
        );
        gradient
    }

    fn attend_gradients(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        y: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        heads: usize,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        let (shape, d) = (kv.shape().to_vec(), query.shape()[0]);
        let [h, head_dim] = [heads, d / heads].map(|size| size as u32);
        let slopes = shape[0] * shape[1] * heads;
        let outputs = [empty(&kv, shape), empty(&kv, vec![slopes])];
        let d_query = empty(&kv, vec![d]);
        let [d_kv, slopes] = launch_into(
            AttendKeys { heads: h, head_dim },
            ROWS,
            row_grid(slopes as u32),
            vec![query, kv.clone(), y, sums, dy],
            outputs,
        );
        let [d_query] = launch_into(
            AttendQuery { heads: h, head_dim },
            ROWS,
            row_grid(h * head_dim.div_ceil(4)),
            vec![kv, slopes],
            [d_query],
        );
        [d_query, d_kv]
    }

    fn select_gradient(
        dy: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        places: IntTensor<Self>,
        first: usize,
        shape: Vec<usize>,
    ) -> FloatTensor<Self> {
        let width = width_of(&dy);
        let kernel = SelectGradient {
            width: width as u32,
            last: first > 0,
        };
        each_quad(kernel, width, vec![dy, offsets, places], shape)
    }

    fn distance_gradient(
        prediction: FloatTensor<Self>,
        target: FloatTensor<Self>,
        distance: Distance,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (width, dims) = (width_of(&prediction), prediction.shape().to_vec());
        let kernel = row_distance(width, distance, true);
        each_quad(kernel, width, vec![prediction, target, dy], dims)
    }

    fn pooled_gradient(dy: FloatTensor<Self>, tokens: usize) -> FloatTensor<Self> {
        let (batch, width) = (dy.shape()[0], dy.shape()[1]);
        let kernel = Pooled {
            width: width as u32,
            tokens: tokens as u32,
            kind: Pooling::Gradient,
        };
        each_quad(kernel, width, vec![dy], vec![batch, tokens, width])
    }

    fn batch_norm_gradients(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        eps: f64,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let width = width_of(&x);
        let kernel = BatchNormGradients {
            width: width as u32,
            eps: (eps as f32).to_bits(),
        };
        let outputs = [
            empty(&x, x.shape().to_vec()),
            empty(&x, vec![width]),
            empty(&x, vec![width]),
        ];
        let columns = row_grid(width.div_ceil(4) as u32);
        launch_into(
            kernel,
            ROWS,
            columns,
            vec![x, gain, mean, variance, dy],
            outputs,
        )
    }

    fn scaled(gradient: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let (width, dims) = (flat_width(&gradient), gradient.shape().to_vec());
        each_quad(Scaled { width }, width as usize, vec![gradient, dy], dims)
    }
}

impl UpdateOps for CubeBackend {
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let width = flat_width(&parameter);
        let count = row_grid(quads_of(parameter.shape().num_elements(), width as usize));
        let (mut inputs, olds) = (vec![gradient, numbers], [parameter, first, second]);
        let (in_place, outputs) = renewed(&mut inputs, olds);
        let kernel = AdamWStep { width, in_place };
        let [parameter, first, second] = launch_into(kernel, ROWS, count, inputs, outputs);
        (parameter, first, second)
    }

    fn averaged(
        average: FloatTensor<Self>,
        value: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let width = flat_width(&average);
        let count = row_grid(quads_of(average.shape().num_elements(), width as usize));
        let mut inputs = vec![value, momentum];
        let (in_place, outputs) = renewed(&mut inputs, [average]);
        let [average] = launch_into(Averaged { width, in_place }, ROWS, count, inputs, outputs);
        average
    }

    fn add_squares(
        total: FloatTensor<Self>,
        x: FloatTensor<Self>,
        minus: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let kernel = AddSquares {
            width: flat_width(&x),
            minus: matches!(minus, ResidualPrimitive::Rows(_)),
        };
        let like = total.clone();
        let mut inputs = vec![total, x];
        if let ResidualPrimitive::Rows(minus) = minus {
            inputs.push(minus);
        }
        let group = (SQUARE_LANES as u32, 1);
        launch(kernel, group, grid(1, 1), inputs, &like, vec![SQUARE_LANES])
    }

    fn clipped(total: FloatTensor<Self>, numbers: FloatTensor<Self>) -> FloatTensor<Self> {
        let like = numbers.clone();
        launch(
            Clipped,
            (1, 1),
            grid(1, 1),
            vec![total, numbers],
            &like,
            vec![8],
        )
    }
}
