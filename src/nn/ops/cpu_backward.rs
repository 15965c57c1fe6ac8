//! [`BackwardOps`] and [`UpdateOps`] on the CPU.

use burn::backend::flex::FlexTensor;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use webjepa_kernels::attention::{Attend, probabilities, score_gradients};
use webjepa_kernels::elements;
use webjepa_kernels::rows::{self, dot};
use webjepa_kernels::threads;

use super::backward::BackwardOps;
use super::cpu::{attention_groups, contiguous, matmul, rows_of, split_heads, values};
use super::update::UpdateOps;
use super::{Activation, AttentionMask, ResidualPrimitive, WeightPrimitive, product_sizes};
use crate::objective::distance::Distance;

impl BackwardOps for Flex {
    fn linear_input_gradient(
        dy: FloatTensor<Self>,
        weight: WeightPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let weight = Self::float_swap_dims(super::cpu::widened(weight), 0, 1);
        let (rows, d_out, dims) = product_sizes(&dy.shape(), weight.shape()[1]);
        let dy = Self::float_reshape(dy, Shape::new([rows, d_out]));
        Self::float_reshape(matmul(dy, weight), Shape::from(dims))
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
        rows::add_rows(&mut d_bias, values(&dy));
        let d_weight = matmul(Self::float_swap_dims(x, 0, 1), dy);
        (d_weight, tensor(d_bias, vec![d_out]))
    }

    fn repeated_gradient(dy: FloatTensor<Self>, shape: Vec<usize>) -> FloatTensor<Self> {
        let dy = dy.to_contiguous();
        let mut sum = vec![0.0; shape.iter().product()];
        rows::add_rows(&mut sum, values(&dy));
        tensor(sum, shape)
    }

    fn activate_gradient(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let shape = x.shape().to_vec();
        let (x, dy) = (x.to_contiguous(), dy.to_contiguous());
        let gradient = match activation {
            Activation::Gelu => elements::gelu_gradient,
            Activation::Relu => elements::relu_gradient,
            Activation::Silu => elements::silu_gradient,
        };
        let data = gradient(values(&x), values(&dy));
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
        let [dx, d_gain, d_shift] =
            rows::norm_gradients(values(&x), values(&gain), eps as f32, values(&dy));
        [
            tensor(dx, shape),
            tensor(d_gain, vec![d]),
            tensor(d_shift, vec![d]),
        ]
    }

    fn self_attention_and_sums(
        qkv: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        super::cpu::attention(qkv, heads, mask)
    }

    fn self_attention_gradient(
        qkv: FloatTensor<Self>,
        y: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        heads: usize,
        mask: AttentionMask,
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
            let mut p = matmul(q.clone(), Self::float_swap_dims(k.clone(), 2, 3));
            let sums = &sums[group.start * heads * tokens..];
            threads::rows(p.storage_mut(), tokens, &|first, rows| {
                let sums = sums[first..].chunks_exact(1);
                for (i, (row, sum)) in rows.chunks_exact_mut(tokens).zip(sums).enumerate() {
                    let (seen, hidden) =
                        row.split_at_mut(mask.visible((first + i) % tokens, tokens));
                    probabilities(seen, scale, sum);
                    hidden.fill(0.0);
                }
            });
            let dv = matmul(Self::float_swap_dims(p.clone(), 2, 3), dy_heads.clone());
            let mut ds = matmul(dy_heads, Self::float_swap_dims(v, 2, 3));
            score_gradients(ds.storage_mut(), values(&p), &delta, scale);
            let dk = matmul(Self::float_swap_dims(ds.clone(), 2, 3), q);
            let dq = matmul(ds, k);
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
        let attend = Attend { tokens, d, heads };
        let [query, kv, y, sums, dy] = [&query, &kv, &y, &sums, &dy].map(values);
        let [d_query, d_kv] = attend.gradients(query, kv, y, sums, dy);
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
                rows::add(row, from);
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
        let dy = dy.to_contiguous();
        let data = rows::pooled_gradient(values(&dy), tokens, d);
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
        let d = shape[1];
        let (x, dy, gain) = (x.to_contiguous(), dy.to_contiguous(), gain.to_contiguous());
        let [x, gain, mean, variance, dy] = [&x, &gain, &mean, &variance, &dy].map(values);
        let [dx, d_gain, d_shift] =
            rows::batch_norm_gradients(x, gain, mean, variance, eps as f32, dy);
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
        tensor(elements::scaled(values(&gradient), by), shape)
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
        elements::adamw(
            parameter.storage_mut(),
            first.storage_mut(),
            second.storage_mut(),
            values(&gradient),
            [keep, beta1, beta2, eps, rate, correction, scale],
        );
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
        elements::averaged(average.storage_mut(), values(&value), momentum);
        average
    }

    fn add_squares(
        mut total: FloatTensor<Self>,
        x: FloatTensor<Self>,
        minus: ResidualPrimitive<Self>,
    ) -> FloatTensor<Self> {
        let (x, minus) = (x.to_contiguous(), contiguous(minus));
        let minus = minus.as_ref().map(values);
        elements::add_squares(total.storage_mut(), values(&x), minus);
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
