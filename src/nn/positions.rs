//! Fixed position embeddings.

use crate::Result;
use crate::config::ModelConfig;
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

/// The fixed table of a model's native grid: I-JEPA's for pictures, V-JEPA 1's for clips.
pub fn fixed(config: &ModelConfig, d: usize) -> Vec<f32> {
    let [time, height, width] = config.grid();
    match config.is_video() {
        false => sincos_2d([height, width], d),
        true => sincos_3d([time, height, width], d, true),
    }
}

/// V-JEPA 1's three-dimensional table, `[time·height·width, d]` row-major, the channels of time, row and column one after the other.
///
/// With `uniform_power`, as in every released model, each axis gets `2·⌈d/6⌉` channels and what is more than `d` is cut off the
/// last; otherwise time gets half of them and the others a quarter each.
pub fn sincos_3d([time, height, width]: [usize; 3], d: usize, uniform_power: bool) -> Vec<f32> {
    let parts = match uniform_power {
        true => [2 * d.div_ceil(6); 3],
        false => [d / 2, d / 4, d / 4],
    };
    let mut table = Vec::with_capacity(time * height * width * d);
    for t in 0..time {
        for row in 0..height {
            for column in 0..width {
                let start = table.len();
                for (position, part) in [t, row, column].into_iter().zip(parts) {
                    sincos(position as f64, part, &mut table);
                }
                table.truncate(start + d);
            }
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
pub fn resampled(table: &[f32], from: [usize; 3], to: [usize; 3], d: usize) -> Result<Vec<f32>> {
    match from == to {
        true => Ok(table.to_vec()),
        false => interpolated(table, from, to, d),
    }
}

/// A table of another resolution, grids `[time, rows, columns]`, without antialias and with align_corners false: of pictures
/// bicubic (a = −0.75), the rule of Hugging Face's `interpolate_pos_encoding`; of clips trilinear, that of V-JEPA 1.
pub fn interpolated(table: &[f32], from: [usize; 3], to: [usize; 3], d: usize) -> Result<Vec<f32>> {
    let planar = exchanged(table, d);
    let sampling = |filter| Sampling {
        filter,
        antialias: false,
    };
    let resized = match (from[0], to[0]) {
        (1, 1) => interpolate(&planar, d, &from[1..], &to[1..], sampling(Filter::Bicubic))?,
        _ => interpolate(&planar, d, &from, &to, sampling(Filter::Bilinear))?,
    };
    Ok(exchanged(&resized, to.iter().product()))
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
