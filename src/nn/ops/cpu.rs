//! [`Ops`] on the CPU: matrix products, and the loops of `webjepa_kernels` on the values of tensors.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use half::f16;
use webjepa_kernels::attention::{self, Attend, softmax};
use webjepa_kernels::elements;
use webjepa_kernels::rows::{self, Epilogue};
use webjepa_kernels::threads;

use super::block::{self, BlockForm, BlockPrimitive};
use super::cpu_backward::tensor;
use super::{
    Activation, AttentionMask, Ops, ResidualPrimitive, WeightPrimitive, product_sizes,
    selected_shape,
};
use crate::objective::distance::Distance;

/// Attention scores that are held at once: 64 MB.
const SCORES: usize = 1 << 24;

/// Queries whose causal attention is computed at once at least: few enough that little is computed of what they do not see,
/// enough for a matrix product.
const CAUSAL_QUERIES: usize = 64;

impl Ops for Flex {
    fn linear(
        x: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
        bias: FloatTensor<Self>,
        residual: ResidualPrimitive<Self>,
        with_gelu: bool,
    ) -> FloatTensor<Self> {
        let d_out = bias.shape()[0];
        let (rows, d_in, dims) = product_sizes(&x.shape(), d_out);

        let x = Self::float_reshape(x, Shape::new([rows, d_in]));
        let (bias, residual) = (bias.to_contiguous(), contiguous(residual));
        let epilogue = Epilogue {
            bias: values(&bias),
            gelu: with_gelu,
            residual: residual.as_ref().map(values),
        };
        let y = weighted(x, weight, Some(&epilogue));
        Self::float_reshape(y, Shape::from(dims))
    }

    fn norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let shape = x.shape().to_vec();
        let (x, gain, shift) = (
            x.to_contiguous(),
            gain.to_contiguous(),
            shift.to_contiguous(),
        );
        let normed = rows::norm(values(&x), values(&gain), values(&shift), eps as f32);
        tensor(normed, shape)
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
    ) -> FloatTensor<Self> {
        attention(qkv, heads, mask).0
    }

    fn attend(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (query, kv) = (query.to_contiguous(), kv.to_contiguous());
        let [batch, tokens, d] = [kv.shape()[0], kv.shape()[1], query.shape()[0]];
        let (y, sums) = Attend { tokens, d, heads }.forward(values(&query), values(&kv));
        (tensor(y, vec![batch, d]), tensor(sums, vec![batch, heads]))
    }

    fn rotate(
        mut qkv: FloatTensor<Self>,
        table: FloatTensor<Self>,
        heads: usize,
        back: bool,
    ) -> FloatTensor<Self> {
        if !qkv.is_contiguous() {
            qkv = qkv.to_contiguous();
        }
        let width = qkv.shape()[2];
        let table = table.to_contiguous();
        let turns = table.shape()[1];
        let head_dim = width / 3 / heads;
        attention::rotate(
            qkv.storage_mut(),
            width,
            head_dim,
            values(&table),
            turns,
            back,
        );
        qkv
    }

    fn activate(mut x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        if !x.is_contiguous() {
            x = x.to_contiguous();
        }
        let values: &mut [f32] = x.storage_mut();
        match activation {
            Activation::Gelu => elements::gelu(values),
            Activation::Relu => elements::relu(values),
            Activation::Silu => elements::silu(values),
        }
        x
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
        let x = x.to_contiguous();
        let d = x.shape()[x.rank() - 1];
        let index = index.storage::<i32>();
        let rest = contiguous(rest);
        let added = contiguous(added);
        let (first, rest) = (values(&x), rest.as_ref().map_or(&[][..], values));
        let mut data = Vec::with_capacity(index.len() * d);
        for &row in index {
            let at = row as usize * d;
            data.extend_from_slice(match at.checked_sub(first.len()) {
                None => &first[at..at + d],
                Some(at) => &rest[at..at + d],
            });
        }
        if let Some(added) = &added {
            rows::add(&mut data, values(added));
        }
        tensor(data, selected_shape(index.len(), batch, d))
    }

    fn distance(
        prediction: FloatTensor<Self>,
        target: FloatTensor<Self>,
        distance: Distance,
    ) -> FloatTensor<Self> {
        let d = prediction.shape()[prediction.rank() - 1];
        let (prediction, target) = (prediction.to_contiguous(), target.to_contiguous());
        let rows = values(&prediction)
            .chunks_exact(d)
            .zip(values(&target).chunks_exact(d));
        let data: Vec<f32> = rows
            .map(|(prediction, target)| {
                let pairs = prediction.iter().zip(target);
                let sum: f64 = pairs
                    .map(|(p, t)| distance.element(f64::from(p - t)).0)
                    .sum();
                (sum / d as f64) as f32
            })
            .collect();
        let rows = data.len();
        tensor(data, vec![rows])
    }

    fn sum(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        let mut sum = a.to_contiguous();
        drop(a);
        let b = b.to_contiguous();
        rows::add(sum.storage_mut(), values(&b));
        sum
    }

    fn multiply_add(
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        c: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let mut y = a.to_contiguous();
        drop(a);
        let (b, c) = (b.to_contiguous(), contiguous(c));
        let y_values: &mut [f32] = y.storage_mut();
        // Repeated where there are fewer rows.
        for block in y_values.chunks_mut(values(&b).len()) {
            elements::multiply(block, values(&b));
        }
        if let Some(c) = &c {
            for block in y_values.chunks_mut(values(c).len()) {
                rows::add(block, values(c));
            }
        }
        y
    }

    fn reshaped(x: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self> {
        Self::float_reshape(x, Shape::from(shape))
    }

    fn halved(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let halves = elements::halved(values(&x));
        FlexTensor::from_data(TensorData::new(halves, x.shape()))
    }

    fn pooled(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let [batch, tokens, d] = [x.shape()[0], x.shape()[1], x.shape()[2]];
        let data = rows::pooled(values(&x), [batch, tokens, d]);
        tensor(data, vec![batch, d])
    }

    fn batch_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let x = x.to_contiguous();
        let (gain, shift) = (gain.to_contiguous(), shift.to_contiguous());
        let (count, d) = (rows_of(&x), gain.shape()[0]);
        let [data, mean, variance] =
            rows::batch_norm(values(&x), values(&gain), values(&shift), eps as f32);
        (
            tensor(data, vec![count, d]),
            tensor(mean, vec![d]),
            tensor(variance, vec![d]),
        )
    }

    fn recomputed_block(
        x: FloatTensor<Self>,
        parameters: BlockPrimitive<Self>,
        rotary: ResidualPrimitive<Self>,
        form: BlockForm,
    ) -> FloatTensor<Self> {
        block::forward::<Self>(x, parameters, rotary, form)
    }

    fn with_gradient(_x: FloatTensor<Self>, _gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor(vec![0.0], vec![1])
    }
}

/// The product over the last two axes; the axes before them are the same for both.
#[cfg(not(target_family = "wasm"))]
pub(super) fn matmul(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    Flex::float_matmul(a, b)
}

/// The same, by this library's own product: see `src/kernels/gemm.rs`.
#[cfg(target_family = "wasm")]
pub(super) fn matmul(a: FlexTensor, b: FlexTensor) -> FlexTensor {
    weighted(a, WeightPrimitive::Full(b), None)
}

/// The same with a weight in any form, and what follows one product.
#[cfg(not(target_family = "wasm"))]
fn weighted(
    a: FlexTensor,
    weight: WeightPrimitive<Flex>,
    epilogue: Option<&Epilogue>,
) -> FlexTensor {
    let mut y = matmul(a, widened(weight));
    if let Some(epilogue) = epilogue {
        epilogue.apply(0, y.storage_mut());
    }
    y
}

#[cfg(target_family = "wasm")]
fn weighted(
    a: FlexTensor,
    weight: WeightPrimitive<Flex>,
    epilogue: Option<&Epilogue>,
) -> FlexTensor {
    use burn::backend::flex::Layout;
    use webjepa_kernels::gemm::{Matrix, Values, product, products};

    let (b, values_of_b) = match &weight {
        WeightPrimitive::Full(b) => (b, Values::F32(b.storage())),
        WeightPrimitive::Half(b) => (b, Values::F16(b.storage())),
        WeightPrimitive::Quantized { values: b, scales } => {
            (b, Values::I8(b.storage(), values(scales)))
        }
    };
    let mut shape = a.shape().to_vec();
    let rank = shape.len();
    let (m, k, n) = (shape[rank - 2], shape[rank - 1], b.shape()[rank - 1]);
    shape[rank - 1] = n;
    let mut data = vec![0.0; shape.iter().product()];
    let matrix = |x: &Layout, values, i: usize| {
        let strides = x.strides();
        let (mut offset, mut rest) = (x.start_offset(), i);
        for axis in (0..rank - 2).rev() {
            offset += rest % shape[axis] * strides[axis] as usize;
            rest /= shape[axis];
        }
        Matrix {
            values,
            offset,
            strides: [strides[rank - 2] as usize, strides[rank - 1] as usize],
        }
    };
    let values_of_a = Values::F32(a.storage());
    let (of_a, of_b) = (a.layout(), b.layout());
    let factors = |i| [matrix(of_a, values_of_a, i), matrix(of_b, values_of_b, i)];
    match data.len() == m * n {
        true => {
            let [a, b] = factors(0);
            product(&mut data, [k, n], a, b, epilogue);
        }
        false => products(&mut data, [m, k, n], &factors),
    }
    tensor(data, shape)
}

/// Rows of a tensor: everything but its last axis.
pub(super) fn rows_of(x: &FlexTensor) -> usize {
    let shape = x.shape();
    shape.num_elements() / shape[shape.num_dims() - 1]
}

/// The values of a contiguous tensor.
pub(super) fn values(x: &FlexTensor) -> &[f32] {
    &x.storage()[..x.shape().num_elements()]
}

pub(super) fn contiguous(rows: ResidualPrimitive<Flex>) -> Option<FlexTensor> {
    match rows {
        ResidualPrimitive::Nothing => None,
        ResidualPrimitive::Rows(rows) => Some(rows.to_contiguous()),
    }
}

/// A weight as f32, `[d_in, d_out]`.
pub(super) fn widened(weight: WeightPrimitive<Flex>) -> FlexTensor {
    match weight {
        WeightPrimitive::Full(weight) => weight,
        WeightPrimitive::Half(weight) => {
            let weight = weight.to_contiguous();
            let shape = weight.shape().to_vec();
            tensor(elements::widened(weight.storage::<f16>()), shape)
        }
        WeightPrimitive::Quantized { values, scales } => {
            let (values, scales) = (values.to_contiguous(), scales.to_contiguous());
            let shape = values.shape().to_vec();
            let widened = elements::dequantized(values.storage(), scales.storage());
            tensor(widened, shape)
        }
    }
}

/// Attention, and the logarithm of each query's sum of exponentials, `[batch, heads, tokens]`. At most [`SCORES`] scores are
/// held at once, but for those of one query.
pub(super) fn attention(
    qkv: FlexTensor,
    heads: usize,
    mask: AttentionMask,
) -> (FlexTensor, FlexTensor) {
    let [batch, tokens] = [qkv.shape()[0], qkv.shape()[1]];
    let [q, k, v] = split_heads(qkv, heads);
    let head_dim = q.shape()[3];
    let scale = (head_dim as f32).sqrt().recip();
    let part = |x: &FlexTensor, images: &Range<usize>, tokens: Range<usize>| {
        let slice = [
            images.clone().into(),
            (0..heads).into(),
            tokens.into(),
            (0..head_dim).into(),
        ];
        Flex::float_slice(x.clone(), &slice)
    };
    let mut mixed = vec![0.0; batch * tokens * heads * head_dim];
    let mut sums = vec![0.0; batch * heads * tokens];
    for images in attention_groups(batch, heads, tokens) {
        let mut at_once = (SCORES / (images.len() * heads * tokens)).clamp(1, tokens);
        if let AttentionMask::Causal { block } = mask {
            at_once = at_once.min(block.max(CAUSAL_QUERIES));
        }
        for first in (0..tokens).step_by(at_once) {
            let queries = first..tokens.min(first + at_once);
            let seen = mask.visible(queries.end - 1, tokens);
            let keys = Flex::float_swap_dims(part(&k, &images, 0..seen), 2, 3);
            let mut scores = matmul(part(&q, &images, queries.clone()), keys);
            let of_row = |row: usize| {
                let (image, head) = (row / (heads * queries.len()), row / queries.len() % heads);
                let query = queries.start + row % queries.len();
                (images.start + image, head, query)
            };
            let scores_of_rows = scores.storage_mut::<f32>();
            let mut sums_of_rows = vec![0.0; scores_of_rows.len() / seen];
            threads::rows_and_values(
                scores_of_rows,
                seen,
                &mut sums_of_rows,
                &|first, rows, sums| {
                    for (i, (row, sum)) in rows.chunks_exact_mut(seen).zip(sums).enumerate() {
                        let (_, _, query) = of_row(first + i);
                        let (values, hidden) = row.split_at_mut(mask.visible(query, seen));
                        *sum = softmax(values, scale);
                        hidden.fill(0.0);
                    }
                },
            );
            for (row, sum) in sums_of_rows.into_iter().enumerate() {
                let (image, head, query) = of_row(row);
                sums[(image * heads + head) * tokens + query] = sum;
            }
            let y = matmul(scores, part(&v, &images, 0..seen));
            for (row, values) in values(&y).chunks_exact(head_dim).enumerate() {
                let (image, head, query) = of_row(row);
                let at = ((image * tokens + query) * heads + head) * head_dim;
                mixed[at..at + head_dim].copy_from_slice(values);
            }
        }
    }
    (
        tensor(mixed, vec![batch, tokens, heads * head_dim]),
        tensor(sums, vec![batch, heads, tokens]),
    )
}

/// Ranges of the batch whose attention scores are held at once.
pub(super) fn attention_groups(
    batch: usize,
    heads: usize,
    tokens: usize,
) -> impl Iterator<Item = Range<usize>> {
    // As f64: the product of sizes can pass 32 bits.
    let scores = heads as f64 * (tokens as f64).powi(2);
    let images = ((SCORES as f64 / scores) as usize).max(1);
    (0..batch)
        .step_by(images)
        .map(move |start| start..batch.min(start + images))
}

/// `[batch, tokens, PARTS·d]` holding, as `[q | k | v]` does, parts to views `[batch, heads, tokens, head_dim]`.
pub(super) fn split_heads<const PARTS: usize>(
    qkv: FlexTensor,
    heads: usize,
) -> [FlexTensor; PARTS] {
    let shape = qkv.shape();
    let (batch, tokens, head_dim) = (shape[0], shape[1], shape[2] / PARTS / heads);
    let qkv = Flex::float_reshape(qkv, Shape::new([batch, tokens, PARTS, heads, head_dim]));
    std::array::from_fn(|i| {
        let slice = [
            (0..batch).into(),
            (0..tokens).into(),
            (i..i + 1).into(),
            (0..heads).into(),
            (0..head_dim).into(),
        ];
        let part = Flex::float_slice(qkv.clone(), &slice);
        let part = Flex::float_reshape(part, Shape::new([batch, tokens, heads, head_dim]));
        Flex::float_swap_dims(part, 1, 2)
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use crate::nn::ops::{AttentionMask, self_attention};

    /// The definition of attention, in f64, for some queries of some heads.
    fn check_attention(tokens: usize, heads: usize, head_dim: usize, mask: AttentionMask) {
        let d = heads * head_dim;
        let data: Vec<f32> = (0..tokens * 3 * d)
            .map(|i| ((i as f32) * 0.37).sin() * 2.0)
            .collect();
        let at = |token: usize, part: usize, head: usize, i: usize| {
            f64::from(data[token * 3 * d + part * d + head * head_dim + i])
        };
        let qkv = Tensor::<3>::from_data(
            TensorData::new(data.clone(), [1, tokens, 3 * d]),
            &Device::flex(),
        );
        let out: Vec<f32> = self_attention(qkv, heads, mask)
            .into_data()
            .try_into_vec()
            .unwrap();
        for query in [0, tokens / 2, tokens - 1] {
            let seen = match mask {
                AttentionMask::Full => tokens,
                AttentionMask::Causal { block } => tokens.min(query - query % block + block),
            };
            for head in 0..heads {
                let score = |key| {
                    let dot: f64 = (0..head_dim)
                        .map(|i| at(query, 0, head, i) * at(key, 1, head, i))
                        .sum();
                    (dot / (head_dim as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = (0..seen).map(score).collect();
                let total: f64 = scores.iter().sum();
                for i in 0..head_dim {
                    let exact: f64 = (0..seen).map(|key| scores[key] * at(key, 2, head, i)).sum();
                    let got = f64::from(out[query * d + head * head_dim + i]);
                    assert!(
                        (got - exact / total).abs() < 1e-5,
                        "{got} for {}",
                        exact / total
                    );
                }
            }
        }
    }

    #[test]
    fn attention_is_its_definition() {
        check_attention(1, 1, 1, AttentionMask::Full);
        check_attention(50, 3, 6, AttentionMask::Full);
        for block in [1, 7, 49, 50, 51] {
            check_attention(50, 3, 6, AttentionMask::Causal { block });
        }
        // More than one group of queries, whose borders are not those of blocks.
        check_attention(201, 1, 4, AttentionMask::Causal { block: 9 });
    }

    #[test]
    fn attention_with_too_many_scores_to_hold_is_the_same() {
        check_attention(4_200, 1, 4, AttentionMask::Full);
        check_attention(4_200, 1, 4, AttentionMask::Causal { block: 4_100 });
    }
}
