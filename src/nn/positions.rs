//! Fixed position embeddings.

use crate::Result;
use crate::input::resize::{Filter, Sampling, interpolate};

/// I-JEPA's two-dimensional sine-cosine table, `[height·width, d]` row-major.
///
/// Each half of the channels is `[sin(p·ω_0) .. , cos(p·ω_0) ..]` with `ω_i = 10000^(-i / (d/4))`, computed in f64.
/// I-JEPA puts the **column** in the first half and the **row** in the second (`get_2d_sincos_pos_embed`: the meshgrid
/// is made with w first); trained weights depend on it.
pub fn sincos_2d([height, width]: [usize; 2], d: usize) -> Vec<f32> {
    let mut table = Vec::with_capacity(height * width * d);
    for row in 0..height {
        for column in 0..width {
            sincos(column as f64, d / 2, &mut table);
            sincos(row as f64, d / 2, &mut table);
        }
    }
    table
}

/// Appends `[sin(p·ω_0) .. sin(p·ω_(d/2-1)), cos(p·ω_0) ..]`.
fn sincos(position: f64, d: usize, out: &mut Vec<f32>) {
    let angle = |i: usize| position * 10000f64.powf(-(i as f64) / (d as f64 / 2.0));
    out.extend((0..d / 2).map(|i| angle(i).sin() as f32));
    out.extend((0..d / 2).map(|i| angle(i).cos() as f32));
}

/// A table of the grid `to`: the one of the grid `from` as it is where they are the same, else [`interpolated`].
pub fn resampled(table: &[f32], from: [usize; 2], to: [usize; 2], d: usize) -> Result<Vec<f32>> {
    match from == to {
        true => Ok(table.to_vec()),
        false => interpolated(table, from, to, d),
    }
}

/// A table of another resolution: `[from.0·from.1, d]` → `[to.0·to.1, d]`, bicubic (a = −0.75, align_corners false, no
/// antialias), the rule of Hugging Face's `interpolate_pos_encoding`.
pub fn interpolated(table: &[f32], from: [usize; 2], to: [usize; 2], d: usize) -> Result<Vec<f32>> {
    let planar = exchanged(table, d);
    let sampling = Sampling {
        filter: Filter::Bicubic,
        antialias: false,
    };
    let resized = interpolate(&planar, d, &from, &to, sampling)?;
    Ok(exchanged(&resized, to[0] * to[1]))
}

/// `[rows, columns]` → `[columns, rows]`.
pub(crate) fn exchanged(data: &[f32], columns: usize) -> Vec<f32> {
    let rows = data.len() / columns;
    (0..columns)
        .flat_map(|c| (0..rows).map(move |r| data[r * columns + c]))
        .collect()
}

/// Rows of a `[tokens, d]` table, for each picture of a batch.
pub fn gathered(table: &[f32], d: usize, tokens: &[Vec<usize>]) -> Vec<f32> {
    tokens
        .iter()
        .flatten()
        .flat_map(|&t| &table[t * d..(t + 1) * d])
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::sincos_2d;

    #[test]
    fn the_first_half_is_the_column() {
        // Token (row 1, column 2) of d = 24: spec §2.1.
        let table = sincos_2d([3, 4], 24);
        let token = &table[(4 + 2) * 24..][..24];
        assert!((token[0] - 2f32.sin()).abs() < 1e-6);
        assert!((token[6] - 2f32.cos()).abs() < 1e-6);
        assert!((token[12] - 1f32.sin()).abs() < 1e-6);
        assert!((token[13] - (1.0 / 10000f64.powf(1.0 / 6.0)).sin() as f32).abs() < 1e-6);
    }
}
