//! [`BackwardOps`] and [`UpdateOps`] on the CPU.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};

use super::backward::BackwardOps;
use super::cpu::{
    attention_groups, contiguous, exp_of_negative, logistic, matmul, reduced, rows_of, split_heads,
    values,
};
use super::gelu::gelu_slope;
use super::update::{SQUARE_LANES, UpdateOps};
use super::{Activation, ResidualPrimitive, WeightPrimitive, product_sizes};
use crate::objective::distance::Distance;

impl BackwardOps for Flex {
    fn linear_input_gradient(
        dy: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let weight = Self::float_swap_dims(super::cpu::widened(weight), 0, 1);
        let (rows, d_out, dims) = product_sizes(&dy.shape(), weight.shape()[1]);
        let dy = Self::float_reshape(dy, Shape::new([rows, d_out]));
        Self::float_reshape(matmul(dy, weight, |_, _| ()), Shape::from(dims))
    }

    fn linear_parameter_gradients(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let rows = rows_of(&x);
        let width = |x: &FlexTensor| x.shape().num_elements() / rows;
        let (d_in, d_out) = (width(&x), width(&dy));
        let x = Self::float_reshape(x, Shape::new([rows, d_in]));
        let dy = Self::float_reshape(dy, Shape::new([rows, d_out])).to_contiguous();
        let mut d_bias = vec![0.0; d_out];
        for row in values(&dy).chunks_exact(d_out) {
            d_bias.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
        }
        let d_weight = matmul(Self::float_swap_dims(x, 0, 1), dy, |_, _| ());
        (d_weight, tensor(d_bias, vec![d_out]))
    }

    fn repeated_gradient(dy: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self> {
        let dy = dy.to_contiguous();
        let mut sum = vec![0.0; shape.iter().product()];
        for block in values(&dy).chunks_exact(sum.len()) {
            sum.iter_mut().zip(block).for_each(|(sum, g)| *sum += g);
        }
        tensor(sum, shape)
    }

    fn activate_gradient(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let shape = x.shape().to_vec();
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let pairs = values(&x).iter().zip(values(&dy));
        let data = match activation {
            Activation::Gelu => pairs
                .map(|(&x, &g)| g * gelu_slope(x, exp_of_negative))
                .collect(),
            Activation::Relu => pairs
                .map(|(&x, &g)| if x > 0.0 { g } else { 0.0 })
                .collect(),
            Activation::Silu => pairs
                .map(|(&x, &g)| {
                    let share = logistic(x);
                    g * share * (1.0 + x * (1.0 - share))
                })
                .collect(),
        };
        tensor(data, shape)
    }

    fn norm_gradients(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        eps: f64,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let shape = x.shape().to_vec();
        let d = gain.shape()[0];
        let (x, dy, gain) = (x.to_contiguous(), dy.to_contiguous(), gain.to_contiguous());
        let gain = values(&gain);
        let mut dx = vec![0.0; values(&x).len()];
        let (mut d_gain, mut d_shift) = (vec![0.0; d], vec![0.0; d]);
        let mut normed = vec![0.0; d];
        for ((x, dy), dx) in values(&x)
            .chunks_exact(d)
            .zip(values(&dy).chunks_exact(d))
            .zip(dx.chunks_exact_mut(d))
        {
            let mean = reduced(x, 0.0, |a, b| a + b) / d as f32;
            normed.iter_mut().zip(x).for_each(|(n, x)| *n = x - mean);
            let squares = dot(&normed, &normed);
            let scale = (squares / d as f32 + eps as f32).sqrt().recip();
            normed.iter_mut().for_each(|n| *n *= scale);
            for (((shift, gain), g), n) in d_shift.iter_mut().zip(&mut d_gain).zip(dy).zip(&normed)
            {
                *shift += g;
                *gain += g * n;
            }
            // dx = scale · (h − mean(h) − n · mean(h·n)) with h = dy · gain.
            dx.iter_mut()
                .zip(dy)
                .zip(gain)
                .for_each(|((h, g), gain)| *h = g * gain);
            let mean_h = reduced(dx, 0.0, |a, b| a + b) / d as f32;
            let mean_hn = dot(dx, &normed) / d as f32;
            dx.iter_mut()
                .zip(&normed)
                .for_each(|(h, n)| *h = scale * (*h - mean_h - n * mean_hn));
        }
        [
            tensor(dx, shape),
            tensor(d_gain, vec![d]),
            tensor(d_shift, vec![d]),
        ]
    }

    fn self_attention_and_sums(
        qkv: FloatTensor<Self>,
        heads: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        super::cpu::attention(qkv, heads)
    }

    fn self_attention_gradient(
        qkv: FloatTensor<Self>,
        y: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        heads: usize,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let shape = qkv.shape().to_vec();
        let (tokens, width) = (shape[1], shape[2] / 3);
        let head_dim = width / heads;
        let scale = (head_dim as f32).sqrt().recip();
        let mut gradient = vec![0.0; qkv.shape().num_elements()];
        let (y, dy) = (y.to_contiguous(), dy.to_contiguous());
        let sums = values(&sums);
        for group in attention_groups(shape[0], heads, tokens) {
            let part = |x: &FlexTensor, parts: usize| {
                let slice = [
                    (group.start..group.end).into(),
                    (0..tokens).into(),
                    (0..parts * width).into(),
                ];
                Self::float_slice(x.clone(), &slice)
            };
            let [q, k, v] = split_heads(part(&qkv, 3), heads);
            let [dy_heads] = split_heads(part(&dy, 1), heads);
            // δ of a query: the sum of y · dy over its head.
            let mut delta = vec![0.0; group.len() * heads * tokens];
            let rows = values(&y)
                .chunks_exact(head_dim)
                .zip(values(&dy).chunks_exact(head_dim));
            for (i, (y, dy)) in rows
                .skip(group.start * tokens * heads)
                .take(delta.len())
                .enumerate()
            {
                let (image, token, head) = (i / (tokens * heads), i / heads % tokens, i % heads);
                delta[(image * heads + head) * tokens + token] = dot(y, dy);
            }
            let mut p = matmul(q.clone(), Self::float_swap_dims(k.clone(), 2, 3), |_, _| ());
            let sums = &sums[group.start * heads * tokens..];
            for (row, &sum) in p.storage_mut::<f32>().chunks_exact_mut(tokens).zip(sums) {
                row.iter_mut()
                    .for_each(|s| *s = exp_of_negative(*s * scale - sum));
            }
            let dv = matmul(
                Self::float_swap_dims(p.clone(), 2, 3),
                dy_heads.clone(),
                |_, _| (),
            );
            let mut ds = matmul(dy_heads, Self::float_swap_dims(v, 2, 3), |_, _| ());
            let probabilities = p.storage::<f32>().chunks_exact(tokens);
            for ((row, p), delta) in ds
                .storage_mut::<f32>()
                .chunks_exact_mut(tokens)
                .zip(probabilities)
                .zip(&delta)
            {
                row.iter_mut()
                    .zip(p)
                    .for_each(|(ds, p)| *ds = p * (*ds - delta) * scale);
            }
            let dk = matmul(Self::float_swap_dims(ds.clone(), 2, 3), q, |_, _| ());
            let dq = matmul(ds, k, |_, _| ());
            for (i, part) in [dq, dk, dv].iter().enumerate() {
                for (row, values) in values(part).chunks_exact(head_dim).enumerate() {
                    let (image, head, token) =
                        (row / (heads * tokens), row / tokens % heads, row % tokens);
                    let at = (((group.start + image) * tokens + token) * 3 + i) * width
                        + head * head_dim;
                    gradient[at..at + head_dim].copy_from_slice(values);
                }
            }
        }
        tensor(gradient, shape)
    }

    fn attend_gradients(
        query: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        y: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        heads: usize,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 2] {
        let shape = kv.shape().to_vec();
        let (query, kv) = (query.to_contiguous(), kv.to_contiguous());
        let (y, dy) = (y.to_contiguous(), dy.to_contiguous());
        let (tokens, d) = (shape[1], query.shape()[0]);
        let head_dim = d / heads;
        let scale = (head_dim as f32).sqrt().recip();
        let (mut d_query, mut d_kv) = (vec![0.0; d], vec![0.0; values(&kv).len()]);
        let sequences = values(&kv)
            .chunks_exact(tokens * 2 * d)
            .zip(d_kv.chunks_exact_mut(tokens * 2 * d))
            .enumerate();
        for (sequence, (kv, d_kv)) in sequences {
            for head in 0..heads {
                let of_head = head * head_dim..(head + 1) * head_dim;
                let of_sequence = sequence * d + of_head.start..sequence * d + of_head.end;
                let (query, dy) = (
                    &values(&query)[of_head.clone()],
                    &values(&dy)[of_sequence.clone()],
                );
                let sum = values(&sums)[sequence * heads + head];
                let delta = dot(&values(&y)[of_sequence], dy);
                for (kv, d_kv) in kv.chunks_exact(2 * d).zip(d_kv.chunks_exact_mut(2 * d)) {
                    let (key, value) = (&kv[of_head.clone()], &kv[d..][of_head.clone()]);
                    let share = exp_of_negative(dot(query, key) * scale - sum);
                    let slope = share * (dot(dy, value) - delta) * scale;
                    let (d_key, d_value) = d_kv.split_at_mut(d);
                    let pairs = d_value[of_head.clone()].iter_mut().zip(dy);
                    pairs.for_each(|(d, g)| *d = share * g);
                    let pairs = d_key[of_head.clone()].iter_mut().zip(query);
                    pairs.for_each(|(d, q)| *d = slope * q);
                    let pairs = d_query[of_head.clone()].iter_mut().zip(key);
                    pairs.for_each(|(d, k)| *d += slope * k);
                }
            }
        }
        [tensor(d_query, vec![d]), tensor(d_kv, shape)]
    }

    fn select_gradient(
        dy: FloatTensor<Self>,
        offsets: IntTensor<Self>,
        places: IntTensor<Self>,
        first: usize,
        shape: Vec<usize>,
    ) -> FloatTensor<Self> {
        let d = dy.shape()[dy.rank() - 1];
        let mut data = vec![0.0; shape.iter().product()];
        let dy = dy.to_contiguous();
        let (dy, places) = (values(&dy), places.storage::<i32>());
        let offsets = &offsets.storage::<i32>()[first..];
        for (row, range) in data.chunks_exact_mut(d).zip(offsets.windows(2)) {
            for &place in &places[range[0] as usize..range[1] as usize] {
                let from = &dy[place as usize * d..][..d];
                row.iter_mut().zip(from).for_each(|(sum, g)| *sum += g);
            }
        }
        tensor(data, shape)
    }

    fn distance_gradient(
        prediction: FloatTensor<Self>,
        target: FloatTensor<Self>,
        distance: Distance,
        dy: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let shape = prediction.shape().to_vec();
        let d = shape[shape.len() - 1];
        let (prediction, target) = (prediction.to_contiguous(), target.to_contiguous());
        let mut data = Vec::with_capacity(values(&prediction).len());
        let rows = values(&prediction)
            .chunks_exact(d)
            .zip(values(&target).chunks_exact(d));
        for ((prediction, target), &dy) in rows.zip(values(&dy)) {
            let share = dy / d as f32;
            let pairs = prediction.iter().zip(target);
            data.extend(pairs.map(|(p, t)| share * distance.element(f64::from(p - t)).1 as f32));
        }
        tensor(data, shape)
    }

    fn pooled_gradient(dy: FloatTensor<Self>, tokens: usize) -> FloatTensor<Self> {
        let [batch, d] = [dy.shape()[0], dy.shape()[1]];
        let share = (tokens as f32).recip();
        let dy = dy.to_contiguous();
        let data = values(&dy)
            .chunks_exact(d)
            .flat_map(|row| std::iter::repeat_n(row, tokens))
            .flat_map(|row| row.iter().map(|g| g * share))
            .collect();
        tensor(data, vec![batch, tokens, d])
    }

    fn batch_norm_gradients(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        variance: FloatTensor<Self>,
        eps: f64,
        dy: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 3] {
        let shape = x.shape().to_vec();
        let (rows, d) = (shape[0], shape[1]);
        let (x, dy, gain) = (x.to_contiguous(), dy.to_contiguous(), gain.to_contiguous());
        let (mean, gain) = (values(&mean), values(&gain));
        let scale: Vec<f32> = values(&variance)
            .iter()
            .map(|v| (v + eps as f32).sqrt().recip())
            .collect();
        let (mut d_gain, mut d_shift) = (vec![0.0; d], vec![0.0; d]);
        let pairs = || values(&x).chunks_exact(d).zip(values(&dy).chunks_exact(d));
        for (x, dy) in pairs() {
            for i in 0..d {
                d_shift[i] += dy[i];
                d_gain[i] += dy[i] * (x[i] - mean[i]) * scale[i];
            }
        }
        let mut dx = Vec::with_capacity(rows * d);
        for (x, dy) in pairs() {
            dx.extend((0..d).map(|i| {
                let normed = (x[i] - mean[i]) * scale[i];
                gain[i] * scale[i] * (dy[i] - (d_shift[i] + normed * d_gain[i]) / rows as f32)
            }));
        }
        [
            tensor(dx, shape),
            tensor(d_gain, vec![d]),
            tensor(d_shift, vec![d]),
        ]
    }

    fn scaled(gradient: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let by = values(&dy)[0];
        let shape = gradient.shape().to_vec();
        let gradient = gradient.to_contiguous();
        tensor(values(&gradient).iter().map(|g| g * by).collect(), shape)
    }
}

impl UpdateOps for Flex {
    fn adamw(
        mut parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        mut first: FloatTensor<Self>,
        mut second: FloatTensor<Self>,
        numbers: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let &[keep, beta1, beta2, eps, rate, correction, scale, _] = values(&numbers) else {
            unreachable!("the numbers of a step are eight");
        };
        let gradient = gradient.to_contiguous();
        if !parameter.is_contiguous() {
            parameter = parameter.to_contiguous();
        }
        let state = parameter
            .storage_mut::<f32>()
            .iter_mut()
            .zip(first.storage_mut::<f32>())
            .zip(second.storage_mut::<f32>());
        for (((p, m), v), &g) in state.zip(values(&gradient)) {
            let g = g * scale;
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * g * g;
            *p = keep * *p - rate * *m / (v.sqrt() * correction + eps);
        }
        (parameter, first, second)
    }

    fn averaged(
        mut average: FloatTensor<Self>,
        value: FloatTensor<Self>,
        momentum: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let momentum = values(&momentum)[0];
        let value = value.to_contiguous();
        if !average.is_contiguous() {
            average = average.to_contiguous();
        }
        let pairs = average.storage_mut::<f32>().iter_mut().zip(values(&value));
        pairs.for_each(|(k, q)| *k = momentum * *k + (1.0 - momentum) * q);
        average
    }

    fn add_squares(
        mut total: FloatTensor<Self>,
        x: FloatTensor<Self>,
        minus: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let (x, minus) = (x.to_contiguous(), contiguous(minus));
        let lanes: &mut [f32] = total.storage_mut();
        let mut add = |chunk: &[f32]| {
            lanes
                .iter_mut()
                .zip(chunk)
                .for_each(|(lane, v)| *lane += v * v);
        };
        match &minus {
            None => values(&x).chunks(SQUARE_LANES).for_each(add),
            Some(minus) => {
                let pairs = values(&x).iter().zip(values(minus));
                let differences: Vec<f32> = pairs.map(|(x, m)| x - m).collect();
                differences.chunks(SQUARE_LANES).for_each(&mut add);
            }
        }
        total
    }

    fn clipped(total: FloatTensor<Self>, mut numbers: FloatTensor<Self>) -> FloatTensor<Self> {
        let norm = values(&total).iter().sum::<f32>().sqrt();
        let numbers_mut: &mut [f32] = numbers.storage_mut();
        numbers_mut[6] *= (numbers_mut[7] / (norm + 1e-6)).min(1.0);
        numbers
    }
}

pub(super) fn tensor(data: Vec<f32>, shape: Vec<usize>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(data, shape))
}

pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_chunks, b_chunks) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a_chunks
        .remainder()
        .iter()
        .zip(b_chunks.remainder())
        .map(|(a, b)| a * b)
        .sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        lanes
            .iter_mut()
            .zip(a)
            .zip(b)
            .for_each(|((lane, a), b)| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + rest
}
