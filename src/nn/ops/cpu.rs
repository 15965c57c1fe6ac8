//! [`Ops`] on the CPU: burn-flex's matmuls, with everything that follows them in loops that become SIMD.

use std::ops::Range;

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use half::f16;

use super::cpu_backward::{dot, tensor};
use super::gelu::gelu;
use super::{Activation, Ops, ResidualPrimitive, WeightPrimitive, product_sizes, selected_shape};
use crate::objective::distance::Distance;

/// Attention scores that are held at once: 64 MB.
const SCORES: usize = 1 << 24;

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

        let weight = widened(weight);
        let x = Self::float_reshape(x, Shape::new([rows, d_in]));
        let (bias, residual) = (bias.to_contiguous(), contiguous(residual));
        let bias = values(&bias);
        // Repeated where it has fewer rows than the product.
        let residual = residual.as_ref().map(values);
        let y = matmul(x, weight, |first, rows| {
            for (i, row) in rows.chunks_exact_mut(d_out).enumerate() {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
                if with_gelu {
                    row.iter_mut().for_each(|y| *y = gelu(*y));
                }
                if let Some(residual) = residual {
                    let at = (first + i) * d_out % residual.len();
                    let added = &residual[at..at + d_out];
                    row.iter_mut().zip(added).for_each(|(y, r)| *y += r);
                }
            }
        });
        Self::float_reshape(y, Shape::from(dims))
    }

    fn norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        let shape = x.shape().to_vec();
        let d = gain.shape()[0];
        let (x, gain, shift) = (
            x.to_contiguous(),
            gain.to_contiguous(),
            shift.to_contiguous(),
        );
        let mut data = Vec::with_capacity(values(&x).len());
        for row in values(&x).chunks_exact(d) {
            let mean = reduced(row, 0.0, |a, b| a + b) / d as f32;
            let start = data.len();
            data.extend(row.iter().map(|v| v - mean));
            let row = &mut data[start..];
            let scale = (dot(row, row) / d as f32 + eps as f32).sqrt().recip();
            let affine = values(&gain).iter().zip(values(&shift));
            row.iter_mut()
                .zip(affine)
                .for_each(|(v, (g, s))| *v = *v * scale * g + s);
        }
        tensor(data, shape)
    }

    fn self_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        attention(qkv, heads).0
    }

    fn attend(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let (query, kv) = (query.to_contiguous(), kv.to_contiguous());
        let [batch, tokens, d] = [kv.shape()[0], kv.shape()[1], query.shape()[0]];
        let head_dim = d / heads;
        let scale = (head_dim as f32).sqrt().recip();
        let (mut y, mut sums) = (vec![0.0; batch * d], Vec::with_capacity(batch * heads));
        let mut shares = vec![0.0; tokens];
        let sequences = values(&kv).chunks_exact(tokens * 2 * d);
        for (kv, y) in sequences.zip(y.chunks_exact_mut(d)) {
            for head in 0..heads {
                let of_head = head * head_dim..(head + 1) * head_dim;
                let query = &values(&query)[of_head.clone()];
                for (share, kv) in shares.iter_mut().zip(kv.chunks_exact(2 * d)) {
                    *share = dot(query, &kv[of_head.clone()]);
                }
                sums.push(softmax(&mut shares, scale));
                let y = &mut y[of_head.clone()];
                for (share, kv) in shares.iter().zip(kv.chunks_exact(2 * d)) {
                    let value = &kv[d..][of_head.clone()];
                    y.iter_mut().zip(value).for_each(|(y, v)| *y += share * v);
                }
            }
        }
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
        let rows = qkv.storage_mut::<f32>().chunks_exact_mut(width);
        for (row, turns) in rows.zip(values(&table).chunks_exact(turns).cycle()) {
            for head in row[..2 * width / 3].chunks_exact_mut(head_dim) {
                for (pair, turn) in head.chunks_exact_mut(2).zip(turns.chunks_exact(4)) {
                    let (a, b) = (pair[0], pair[1]);
                    let (sine_a, sine_b) = match back {
                        false => (turn[1], turn[3]),
                        true => (-turn[3], -turn[1]),
                    };
                    pair[0] = a * turn[0] - b * sine_a;
                    pair[1] = b * turn[2] + a * sine_b;
                }
            }
        }
        qkv
    }

    fn activate(mut x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        if !x.is_contiguous() {
            x = x.to_contiguous();
        }
        let values: &mut [f32] = x.storage_mut();
        match activation {
            Activation::Gelu => values.iter_mut().for_each(|v| *v = gelu(*v)),
            Activation::Relu => values.iter_mut().for_each(|v| *v = v.max(0.0)),
            Activation::Silu => values.iter_mut().for_each(|v| *v *= logistic(*v)),
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
            data.iter_mut()
                .zip(values(added))
                .for_each(|(y, a)| *y += a);
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
        let pairs = sum.storage_mut::<f32>().iter_mut().zip(values(&b));
        pairs.for_each(|(sum, b)| *sum += b);
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
            block.iter_mut().zip(values(&b)).for_each(|(y, b)| *y *= b);
        }
        if let Some(c) = &c {
            for block in y_values.chunks_mut(values(c).len()) {
                block.iter_mut().zip(values(c)).for_each(|(y, c)| *y += c);
            }
        }
        y
    }

    fn reshaped(x: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self> {
        Self::float_reshape(x, Shape::from(shape))
    }

    fn halved(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let largest = f16::MAX.to_f32();
        let halves = values(&x)
            .iter()
            .map(|v| f16::from_f32(v.clamp(-largest, largest)))
            .collect::<Vec<_>>();
        FlexTensor::from_data(TensorData::new(halves, x.shape()))
    }

    fn pooled(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let [batch, tokens, d] = [x.shape()[0], x.shape()[1], x.shape()[2]];
        let mut data = vec![0.0; batch * d];
        for (mean, tokens) in data
            .chunks_exact_mut(d)
            .zip(values(&x).chunks_exact(tokens * d))
        {
            for token in tokens.chunks_exact(d) {
                mean.iter_mut().zip(token).for_each(|(m, v)| *m += v);
            }
        }
        let share = (tokens as f32).recip();
        data.iter_mut().for_each(|v| *v *= share);
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
        let (rows, d) = (rows_of(&x), gain.shape()[0]);
        let share = (rows as f32).recip();
        let (mut mean, mut variance) = (vec![0.0f32; d], vec![0.0f32; d]);
        for row in values(&x).chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v * share);
        }
        for row in values(&x).chunks_exact(d) {
            let pairs = variance.iter_mut().zip(row).zip(&mean);
            pairs.for_each(|((sum, v), m)| *sum += (v - m) * (v - m) * share);
        }
        let factor: Vec<f32> = values(&gain)
            .iter()
            .zip(&variance)
            .map(|(g, v)| g / (v + eps as f32).sqrt())
            .collect();
        let mut data = Vec::with_capacity(rows * d);
        for row in values(&x).chunks_exact(d) {
            let columns = row.iter().zip(&mean).zip(&factor).zip(values(&shift));
            data.extend(columns.map(|(((v, m), f), s)| (v - m) * f + s));
        }
        (
            tensor(data, vec![rows, d]),
            tensor(mean, vec![d]),
            tensor(variance, vec![d]),
        )
    }

    fn with_gradient(_x: FloatTensor<Self>, _gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        tensor(vec![0.0], vec![1])
    }
}

/// The product over the last two axes; the axes before them are the same for both. `finish` is shown groups of whole rows of the
/// first product once they are complete, each with the index of its first row.
#[cfg(not(target_family = "wasm"))]
pub(super) fn matmul(
    a: FlexTensor,
    b: FlexTensor,
    mut finish: impl FnMut(usize, &mut [f32]),
) -> FlexTensor {
    let mut y = Flex::float_matmul(a, b);
    finish(0, y.storage_mut());
    y
}

/// The same, by this library's own product: see `gemm.rs`.
#[cfg(target_family = "wasm")]
pub(super) fn matmul(
    a: FlexTensor,
    b: FlexTensor,
    mut finish: impl FnMut(usize, &mut [f32]),
) -> FlexTensor {
    use super::gemm::{Matrix, product};

    let mut shape = a.shape().to_vec();
    let rank = shape.len();
    let (m, k, n) = (shape[rank - 2], shape[rank - 1], b.shape()[rank - 1]);
    shape[rank - 1] = n;
    let mut data = vec![0.0; shape.iter().product()];
    for (i, out) in data.chunks_exact_mut(m * n).enumerate() {
        let matrix = |x: &FlexTensor| {
            let (layout, mut rest) = (x.layout(), i);
            let strides = layout.strides();
            let mut offset = layout.start_offset();
            for axis in (0..rank - 2).rev() {
                offset += rest % shape[axis] * strides[axis] as usize;
                rest /= shape[axis];
            }
            (
                offset,
                [strides[rank - 2] as usize, strides[rank - 1] as usize],
            )
        };
        let ((of_a, strides_a), (of_b, strides_b)) = (matrix(&a), matrix(&b));
        let factor = |x, offset, strides| Matrix {
            data: x,
            offset,
            strides,
        };
        let factors = (
            factor(a.storage(), of_a, strides_a),
            factor(b.storage(), of_b, strides_b),
        );
        product(out, [k, n], factors.0, factors.1, |first, rows| {
            finish(i * m + first, rows);
        });
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
            let values = weight.storage::<f16>().iter();
            tensor(values.map(|v| v.to_f32()).collect(), shape)
        }
        WeightPrimitive::Quantized { values, scales } => {
            let (values, scales) = (values.to_contiguous(), scales.to_contiguous());
            let shape = values.shape().to_vec();
            let steps: &[f32] = scales.storage();
            let rows = values.storage::<i8>().chunks_exact(shape[1]);
            let widened =
                rows.flat_map(|row| row.iter().zip(steps).map(|(&v, s)| f32::from(v) * s));
            tensor(widened.collect(), shape)
        }
    }
}

/// Attention, and the logarithm of each query's sum of exponentials, `[batch, heads, tokens]`. At most [`SCORES`] scores are
/// held at once, but for those of one query.
pub(super) fn attention(qkv: FlexTensor, heads: usize) -> (FlexTensor, FlexTensor) {
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
        let keys = Flex::float_swap_dims(part(&k, &images, 0..tokens), 2, 3);
        let weighed = part(&v, &images, 0..tokens);
        let at_once = (SCORES / (images.len() * heads * tokens)).clamp(1, tokens);
        for first in (0..tokens).step_by(at_once) {
            let queries = first..tokens.min(first + at_once);
            let mut scores = matmul(part(&q, &images, queries.clone()), keys.clone(), |_, _| ());
            let rows = scores.storage_mut::<f32>().chunks_exact_mut(tokens);
            let of_row = |row: usize| {
                let (image, head) = (row / (heads * queries.len()), row / queries.len() % heads);
                let query = queries.start + row % queries.len();
                (images.start + image, head, query)
            };
            for (row, values) in rows.enumerate() {
                let (image, head, query) = of_row(row);
                sums[(image * heads + head) * tokens + query] = softmax(values, scale);
            }
            let y = matmul(scores, weighed.clone(), |_, _| ());
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

/// `softmax(scale · row)` in place, and the logarithm of the sum of exponentials of `scale · row`; `scale` is positive.
fn softmax(row: &mut [f32], scale: f32) -> f32 {
    let top = reduced(row, f32::NEG_INFINITY, |a, b| if a > b { a } else { b });
    row.iter_mut()
        .for_each(|v| *v = exp_of_negative((*v - top) * scale));
    let sum = reduced(row, 0.0, |a, b| a + b);
    let share = sum.recip();
    row.iter_mut().for_each(|v| *v *= share);
    top * scale + sum.ln()
}

/// Reduces in eight lanes, which the compiler may not invent for floats by itself.
pub(super) fn reduced(row: &[f32], start: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; 8];
    let chunks = row.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        lanes
            .iter_mut()
            .zip(chunk)
            .for_each(|(lane, &v)| *lane = combine(*lane, v));
    }
    lanes.iter().chain(rest).fold(start, |a, &b| combine(a, b))
}

/// `1 / (1 + e^−x)`.
#[inline]
pub(super) fn logistic(x: f32) -> f32 {
    let e = exp_of_negative(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// `e^x` for `x ≤ 0`, 0 below -87, without branches or calls: Cephes' `expf`, relative error below 2e-7.
#[inline]
pub(super) fn exp_of_negative(x: f32) -> f32 {
    const COEFFICIENTS: [f32; 6] = [
        1.987_569_1e-4,
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    // ln 2 in two parts, so that the reduced argument is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let power = (x.max(-88.0) * std::f32::consts::LOG2_E + 0.5).floor();
    let r = x.max(-88.0) - power * LN_2[0] - power * LN_2[1];
    let polynomial = COEFFICIENTS.iter().fold(0.0, |sum, c| sum * r + c);
    let two_to_power = f32::from_bits(((power as i32 + 127) << 23) as u32);
    let value = (polynomial * r * r + r + 1.0) * two_to_power;
    if x < -87.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor, TensorData};

    use super::exp_of_negative;
    use crate::nn::ops::self_attention;

    #[test]
    fn exp_is_exact_to_rounding() {
        for i in 0..=86_000 {
            let x = -(i as f32) * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_of_negative(x)) - exact).abs() / exact;
            assert!(error <= 2e-7, "exp({x}) is off by {error}");
        }
        assert_eq!(exp_of_negative(0.0), 1.0);
        assert_eq!(exp_of_negative(-1e9), 0.0);
    }

    /// The definition of attention, in f64, for some queries of some heads.
    fn check_attention(tokens: usize, heads: usize, head_dim: usize) {
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
        let out: Vec<f32> = self_attention(qkv, heads)
            .into_data()
            .try_into_vec()
            .unwrap();
        for query in [0, tokens / 2, tokens - 1] {
            for head in 0..heads {
                let score = |key| {
                    let dot: f64 = (0..head_dim)
                        .map(|i| at(query, 0, head, i) * at(key, 1, head, i))
                        .sum();
                    (dot / (head_dim as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = (0..tokens).map(score).collect();
                let total: f64 = scores.iter().sum();
                for i in 0..head_dim {
                    let exact: f64 = (0..tokens)
                        .map(|key| scores[key] * at(key, 2, head, i))
                        .sum();
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
        check_attention(1, 1, 1);
        check_attention(50, 3, 6);
    }

    #[test]
    fn attention_with_too_many_scores_to_hold_is_the_same() {
        check_attention(4_200, 1, 4);
    }
}
