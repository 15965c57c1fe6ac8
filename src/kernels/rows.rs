//! Loops over rows of a width: norms, sums, and what follows a matrix product.

use crate::gelu::Gelu;
use crate::lanes::map;
use crate::threads;

/// What is done to the rows of a product: a bias is added, GELU taken, another matrix added.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// `[n]`.
    pub bias: &'a [f32],
    /// Whether GELU is taken after the bias.
    pub gelu: bool,
    /// Added at the end: `[m, n]`, or fewer rows, which are then repeated.
    pub residual: Option<&'a [f32]>,
}

impl Epilogue<'_> {
    /// Finishes whole rows of a product, of which the first has the index `first`.
    pub fn apply(&self, first: usize, rows: &mut [f32]) {
        let n = self.bias.len();
        for (i, row) in rows.chunks_exact_mut(n).enumerate() {
            add(row, self.bias);
            if self.gelu {
                map(row, &Gelu);
            }
            if let Some(residual) = self.residual {
                let at = (first + i) * n % residual.len();
                add(row, &residual[at..at + n]);
            }
        }
    }
}

/// `y += x`.
#[inline(never)]
pub fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}

/// `y += factor · x`.
#[inline(never)]
pub fn add_scaled(y: &mut [f32], factor: f32, x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += factor * x);
}

/// Adds every row of `x` to `sum`, which is one.
#[inline(never)]
pub fn add_rows(sum: &mut [f32], x: &[f32]) {
    for row in x.chunks_exact(sum.len()) {
        add(sum, row);
    }
}

/// The dot product.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
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

/// The sum, in eight lanes, which the compiler may not invent for floats by itself.
pub fn sum(row: &[f32]) -> f32 {
    let mut lanes = [0.0; 8];
    let chunks = row.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, v)| *lane += v);
    }
    lanes.iter().chain(rest).sum()
}

/// The greatest value.
pub fn top(row: &[f32]) -> f32 {
    let greater = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; 8];
    let chunks = row.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        let pairs = lanes.iter_mut().zip(chunk);
        pairs.for_each(|(lane, &v)| *lane = greater(*lane, v));
    }
    let all = lanes.iter().chain(rest);
    all.fold(f32::NEG_INFINITY, |a, &b| greater(a, b))
}

/// LayerNorm of the rows of `x [rows, d]`.
#[inline(never)]
pub fn norm(x: &[f32], gain: &[f32], shift: &[f32], eps: f32) -> Vec<f32> {
    let d = gain.len();
    let mut data = vec![0.0; x.len()];
    threads::rows(&mut data, d, &|first, rows| {
        let x = x[first * d..].chunks_exact(d);
        for (row, x) in rows.chunks_exact_mut(d).zip(x) {
            let mean = sum(x) / d as f32;
            row.iter_mut().zip(x).for_each(|(v, x)| *v = x - mean);
            let scale = (dot(row, row) / d as f32 + eps).sqrt().recip();
            let affine = gain.iter().zip(shift);
            row.iter_mut()
                .zip(affine)
                .for_each(|(v, (g, s))| *v = *v * scale * g + s);
        }
    });
    data
}

/// Gradients of [`norm`] with respect to `x`, gain and shift.
#[inline(never)]
pub fn norm_gradients(x: &[f32], gain: &[f32], eps: f32, dy: &[f32]) -> [Vec<f32>; 3] {
    let d = gain.len();
    let mut dx = vec![0.0; x.len()];
    let (mut d_gain, mut d_shift) = (vec![0.0; d], vec![0.0; d]);
    let mut normed = vec![0.0; d];
    let rows = x.chunks_exact(d).zip(dy.chunks_exact(d));
    for ((x, dy), dx) in rows.zip(dx.chunks_exact_mut(d)) {
        let mean = sum(x) / d as f32;
        normed.iter_mut().zip(x).for_each(|(n, x)| *n = x - mean);
        let squares = dot(&normed, &normed);
        let scale = (squares / d as f32 + eps).sqrt().recip();
        normed.iter_mut().for_each(|n| *n *= scale);
        for (((shift, gain), g), n) in d_shift.iter_mut().zip(&mut d_gain).zip(dy).zip(&normed) {
            *shift += g;
            *gain += g * n;
        }
        // dx = scale · (h − mean(h) − n · mean(h·n)) with h = dy · gain.
        dx.iter_mut()
            .zip(dy)
            .zip(gain)
            .for_each(|((h, g), gain)| *h = g * gain);
        let mean_h = sum(dx) / d as f32;
        let mean_hn = dot(dx, &normed) / d as f32;
        dx.iter_mut()
            .zip(&normed)
            .for_each(|(h, n)| *h = scale * (*h - mean_h - n * mean_hn));
    }
    [dx, d_gain, d_shift]
}

/// The mean over tokens of `x [batch, tokens, d]`: `[batch, d]`.
#[inline(never)]
pub fn pooled(x: &[f32], [batch, tokens, d]: [usize; 3]) -> Vec<f32> {
    let mut data = vec![0.0; batch * d];
    for (mean, tokens) in data.chunks_exact_mut(d).zip(x.chunks_exact(tokens * d)) {
        add_rows(mean, tokens);
    }
    let share = (tokens as f32).recip();
    data.iter_mut().for_each(|v| *v *= share);
    data
}

/// Gradient of [`pooled`], from `dy [batch, d]`.
#[inline(never)]
pub fn pooled_gradient(dy: &[f32], tokens: usize, d: usize) -> Vec<f32> {
    let share = (tokens as f32).recip();
    dy.chunks_exact(d)
        .flat_map(|row| std::iter::repeat_n(row, tokens))
        .flat_map(|row| row.iter().map(|g| g * share))
        .collect()
}

/// BatchNorm of `x [rows, d]` by its own statistics, and those: the mean and biased variance of each column.
#[inline(never)]
pub fn batch_norm(x: &[f32], gain: &[f32], shift: &[f32], eps: f32) -> [Vec<f32>; 3] {
    let d = gain.len();
    let share = ((x.len() / d) as f32).recip();
    let (mut mean, mut variance) = (vec![0.0f32; d], vec![0.0f32; d]);
    for row in x.chunks_exact(d) {
        add_scaled(&mut mean, share, row);
    }
    for row in x.chunks_exact(d) {
        let pairs = variance.iter_mut().zip(row).zip(&mean);
        pairs.for_each(|((sum, v), m)| *sum += (v - m) * (v - m) * share);
    }
    let factor: Vec<f32> = gain
        .iter()
        .zip(&variance)
        .map(|(g, v)| g / (v + eps).sqrt())
        .collect();
    let mut data = Vec::with_capacity(x.len());
    for row in x.chunks_exact(d) {
        let columns = row.iter().zip(&mean).zip(&factor).zip(shift);
        data.extend(columns.map(|(((v, m), f), s)| (v - m) * f + s));
    }
    [data, mean, variance]
}

/// Gradients of [`batch_norm`] with respect to `x`, gain and shift, from its statistics.
#[inline(never)]
pub fn batch_norm_gradients(
    x: &[f32],
    gain: &[f32],
    mean: &[f32],
    variance: &[f32],
    eps: f32,
    dy: &[f32],
) -> [Vec<f32>; 3] {
    let d = gain.len();
    let rows = x.len() / d;
    let scale: Vec<f32> = variance.iter().map(|v| (v + eps).sqrt().recip()).collect();
    let (mut d_gain, mut d_shift) = (vec![0.0; d], vec![0.0; d]);
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        for i in 0..d {
            d_shift[i] += dy[i];
            d_gain[i] += dy[i] * (x[i] - mean[i]) * scale[i];
        }
    }
    let mut dx = Vec::with_capacity(x.len());
    for (x, dy) in x.chunks_exact(d).zip(dy.chunks_exact(d)) {
        dx.extend((0..d).map(|i| {
            let normed = (x[i] - mean[i]) * scale[i];
            gain[i] * scale[i] * (dy[i] - (d_shift[i] + normed * d_gain[i]) / rows as f32)
        }));
    }
    [dx, d_gain, d_shift]
}
