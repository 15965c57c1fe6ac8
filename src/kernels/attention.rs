//! What attention does between its matrix products.

use crate::exp::Exp;
use crate::lanes::{map, one};
use crate::rows::{add_scaled, dot, sum, top};

/// `softmax(scale · row)` in place, and the logarithm of the sum of exponentials of `scale · row`; `scale` is positive.
#[inline(never)]
pub fn softmax(row: &mut [f32], scale: f32) -> f32 {
    let top = top(row);
    map(row, &Exp { shift: top, scale });
    let sum = sum(row);
    let share = sum.recip();
    row.iter_mut().for_each(|v| *v *= share);
    top * scale + sum.ln()
}

/// Rows of scores, each with the logarithm of its sum of exponentials, to the probabilities that [`softmax`] had made of them.
#[inline(never)]
pub fn probabilities(scores: &mut [f32], scale: f32, sums: &[f32]) {
    let tokens = scores.len() / sums.len();
    for (row, &sum) in scores.chunks_exact_mut(tokens).zip(sums) {
        let shift = sum / scale;
        map(row, &Exp { shift, scale });
    }
}

/// Gradients of probabilities, in rows with `delta` each, to those of the scores before their scale.
#[inline(never)]
pub fn score_gradients(d: &mut [f32], probabilities: &[f32], delta: &[f32], scale: f32) {
    let tokens = d.len() / delta.len();
    let rows = d
        .chunks_exact_mut(tokens)
        .zip(probabilities.chunks_exact(tokens));
    for ((row, p), delta) in rows.zip(delta) {
        row.iter_mut()
            .zip(p)
            .for_each(|(d, p)| *d = p * (*d - delta) * scale);
    }
}

/// Sizes of the attention of one query to sequences.
#[derive(Clone, Copy, Debug)]
pub struct Attend {
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Width of the query.
    pub d: usize,
    /// Heads, which share the width.
    pub heads: usize,
}

impl Attend {
    fn scale(self) -> f32 {
        ((self.d / self.heads) as f32).sqrt().recip()
    }

    /// The answers `[batch, d]` of `query [d]` to `kv [batch, tokens, 2·d]`, and the logarithms of the sums of exponentials,
    /// `[batch, heads]`.
    #[inline(never)]
    pub fn forward(self, query: &[f32], kv: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let Self { tokens, d, heads } = self;
        let (head_dim, batch) = (d / heads, kv.len() / (tokens * 2 * d));
        let (mut y, mut sums) = (vec![0.0; batch * d], Vec::with_capacity(batch * heads));
        let mut shares = vec![0.0; tokens];
        for (kv, y) in kv.chunks_exact(tokens * 2 * d).zip(y.chunks_exact_mut(d)) {
            for head in 0..heads {
                let of_head = head * head_dim..(head + 1) * head_dim;
                let query = &query[of_head.clone()];
                for (share, kv) in shares.iter_mut().zip(kv.chunks_exact(2 * d)) {
                    *share = dot(query, &kv[of_head.clone()]);
                }
                sums.push(softmax(&mut shares, self.scale()));
                let y = &mut y[of_head.clone()];
                for (&share, kv) in shares.iter().zip(kv.chunks_exact(2 * d)) {
                    add_scaled(y, share, &kv[d..][of_head.clone()]);
                }
            }
        }
        (y, sums)
    }

    /// Gradients with respect to the query and `kv`.
    #[inline(never)]
    pub fn gradients(
        self,
        query: &[f32],
        kv: &[f32],
        y: &[f32],
        sums: &[f32],
        dy: &[f32],
    ) -> [Vec<f32>; 2] {
        let Self { tokens, d, heads } = self;
        let (head_dim, scale) = (d / heads, self.scale());
        let (mut d_query, mut d_kv) = (vec![0.0; d], vec![0.0; kv.len()]);
        let sequences = kv
            .chunks_exact(tokens * 2 * d)
            .zip(d_kv.chunks_exact_mut(tokens * 2 * d))
            .enumerate();
        for (sequence, (kv, d_kv)) in sequences {
            for head in 0..heads {
                let of_head = head * head_dim..(head + 1) * head_dim;
                let of_sequence = sequence * d + of_head.start..sequence * d + of_head.end;
                let (query, dy) = (&query[of_head.clone()], &dy[of_sequence.clone()]);
                let shift = sums[sequence * heads + head] / scale;
                let delta = dot(&y[of_sequence], dy);
                for (kv, d_kv) in kv.chunks_exact(2 * d).zip(d_kv.chunks_exact_mut(2 * d)) {
                    let (key, value) = (&kv[of_head.clone()], &kv[d..][of_head.clone()]);
                    let share = one(dot(query, key), &Exp { shift, scale });
                    let slope = share * (dot(dy, value) - delta) * scale;
                    let (d_key, d_value) = d_kv.split_at_mut(d);
                    add_scaled(&mut d_value[of_head.clone()], share, dy);
                    add_scaled(&mut d_key[of_head.clone()], slope, query);
                    add_scaled(&mut d_query[of_head.clone()], slope, key);
                }
            }
        }
        [d_query, d_kv]
    }
}

/// Rotates the pairs of channels of queries and keys, `[rows, 3·heads·head_dim]`, by `table [positions, turns]`, which is repeated over the
/// rows: four numbers a pair, cosine and sine for each of the two. `back` applies the transpose.
#[inline(never)]
pub fn rotate(
    qkv: &mut [f32],
    width: usize,
    head_dim: usize,
    table: &[f32],
    turns: usize,
    back: bool,
) {
    let rows = qkv.chunks_exact_mut(width);
    for (row, turns) in rows.zip(table.chunks_exact(turns).cycle()) {
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
}
