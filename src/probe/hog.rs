//! Histograms of oriented gradients (Dalal & Triggs 2005): what classified pictures before learned features did, and so
//! the least that learned features must beat.

use crate::input::ImageView;
use crate::input::image::Pixels;
use crate::{Error, Result};

/// Unsigned orientations, of 20° each.
const ORIENTATIONS: usize = 9;

/// Cells on a side of a block.
const BLOCK: usize = 2;

/// Where a block's normalised values are cut off before they are normalised again (Lowe's L2-Hys).
const CLIP: f32 = 0.2;

/// What keeps blocks without gradients at 0; gradients are of samples from 0 to 255.
const SMALL: f32 = 1.0;

/// Features of a byte picture, cut into square cells of `cell` pixels (what is left at the right and the bottom is left
/// out): `[blocks down, blocks across, 4 cells, 9 orientations]`, blocks overlapping by half. As published: gradients by
/// centred differences without smoothing, in each pixel of the strongest channel; shares by linear interpolation
/// between the neighbouring orientations and cells; no window, and no gamma.
///
/// # Errors
/// [`Error::BadInput`] if the picture is not of bytes, or has fewer than two cells on a side.
pub fn hog(image: &ImageView, cell: usize) -> Result<Vec<f32>> {
    image.validate()?;
    let Pixels::U8(samples) = image.pixels else {
        return Err(Error::BadInput(
            "HOG features are made of pictures of bytes from 0 to 255.".into(),
        ));
    };
    let cells = [image.height, image.width].map(|side| side.checked_div(cell).unwrap_or(0));
    if cells.iter().any(|&count| count < BLOCK) {
        return Err(Error::BadInput(format!(
            "A picture of {} × {} pixels has fewer than {BLOCK} cells of {cell} pixels on a side.",
            image.width, image.height
        )));
    }
    Ok(blocks(&histograms(samples, image, cell, cells), cells))
}

/// `[cells down, cells across, 9]`.
fn histograms(samples: &[u8], image: &ImageView, cell: usize, cells: [usize; 2]) -> Vec<f32> {
    let mut histograms = vec![0.0; cells[0] * cells[1] * ORIENTATIONS];
    for y in 0..cells[0] * cell {
        for x in 0..cells[1] * cell {
            let [down, across] = gradient(samples, image, y, x);
            let length = down.hypot(across);
            if length == 0.0 {
                continue;
            }
            // Half a turn is none: the sign of a gradient says which side is bright.
            let turn = (down.atan2(across) / std::f32::consts::PI).rem_euclid(1.0);
            let orientations = shared(turn * ORIENTATIONS as f32);
            let place = |at: usize| shared((at as f32 + 0.5) / cell as f32);
            for (row, of_row) in place(y) {
                for (column, of_column) in place(x) {
                    let inside = [(row, cells[0]), (column, cells[1])]
                        .iter()
                        .all(|&(at, count)| (0..count as i32).contains(&at));
                    if !inside {
                        continue;
                    }
                    let first = (row as usize * cells[1] + column as usize) * ORIENTATIONS;
                    for (orientation, share) in orientations {
                        let bin = orientation.rem_euclid(ORIENTATIONS as i32) as usize;
                        histograms[first + bin] += length * of_row * of_column * share;
                    }
                }
            }
        }
    }
    histograms
}

/// The two bins whose centres, at halves, are around a position, and their shares.
fn shared(position: f32) -> [(i32, f32); 2] {
    let below = (position - 0.5).floor();
    let share = position - 0.5 - below;
    [(below as i32, 1.0 - share), (below as i32 + 1, share)]
}

/// `[down, across]`, of the channel in which it is longest; the border repeats itself.
fn gradient(samples: &[u8], image: &ImageView, y: usize, x: usize) -> [f32; 2] {
    let colours = if image.channels >= 3 { 3 } else { 1 };
    let at = |y: usize, x: usize, channel: usize| {
        f32::from(samples[(y * image.width + x) * image.channels + channel])
    };
    let [below, right] = [(y + 1).min(image.height - 1), (x + 1).min(image.width - 1)];
    let [above, left] = [y.saturating_sub(1), x.saturating_sub(1)];
    let of = |c: usize| {
        [
            at(below, x, c) - at(above, x, c),
            at(y, right, c) - at(y, left, c),
        ]
    };
    let square = |[down, across]: [f32; 2]| down * down + across * across;
    (1..colours).map(of).fold(of(0), |longest, other| {
        if square(other) > square(longest) {
            other
        } else {
            longest
        }
    })
}

fn blocks(histograms: &[f32], [rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut features = Vec::new();
    for row in 0..=rows - BLOCK {
        for column in 0..=columns - BLOCK {
            let first = features.len();
            for cell_row in row..row + BLOCK {
                let start = (cell_row * columns + column) * ORIENTATIONS;
                features.extend(&histograms[start..start + BLOCK * ORIENTATIONS]);
            }
            let block = &mut features[first..];
            normalise(block, SMALL);
            block.iter_mut().for_each(|value| *value = value.min(CLIP));
            normalise(block, f32::MIN_POSITIVE);
        }
    }
    features
}

fn normalise(block: &mut [f32], small: f32) {
    let squares: f32 = block.iter().map(|value| value * value).sum();
    let length = (squares + small * small).sqrt();
    if length > 0.0 {
        block.iter_mut().for_each(|value| *value /= length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(height: usize, width: usize, at: impl Fn(usize, usize) -> u8) -> Vec<u8> {
        (0..height * width)
            .map(|i| at(i / width, i % width))
            .collect()
    }

    fn features(samples: &[u8], [height, width]: [usize; 2], cell: usize) -> Vec<f32> {
        hog(&ImageView::from_u8(samples, width, height, 1), cell).unwrap()
    }

    #[test]
    fn blocks_overlap_and_are_of_unit_length() {
        let samples = grey(34, 26, |y, x| ((y * 31 + x * 17 + y * x) % 256) as u8);
        let features = features(&samples, [34, 26], 8);
        assert_eq!(features.len(), 3 * 2 * 4 * 9);
        for block in features.chunks_exact(36) {
            let length: f32 = block.iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn a_ramp_has_one_orientation_shared_by_the_bins_around_it() {
        // Brighter to the right: 0°, the border of the first and the last bin, which are neighbours.
        let across = features(&grey(16, 16, |_, x| (x * 10) as u8), [16, 16], 8);
        for cell in across.chunks_exact(9) {
            assert!((cell[0] - cell[8]).abs() < 1e-6 && cell[0] > 0.0);
            assert!(cell[1..8].iter().all(|&value| value.abs() < 1e-5));
        }
        // Brighter downwards: 90°, the centre of the middle one. The same if darker: orientations have no sign.
        for sign in [false, true] {
            let ramp = grey(16, 16, |y, _| (if sign { 15 - y } else { y } * 10) as u8);
            for cell in features(&ramp, [16, 16], 8).chunks_exact(9) {
                // Four equal cells, each all in one bin: ½, cut off at 0.2, and normalised again to ½.
                assert!((cell[4] - 0.5).abs() < 0.02, "{cell:?}");
                assert!(
                    cell.iter()
                        .enumerate()
                        .all(|(i, &v)| i == 4 || v.abs() < 1e-4)
                );
            }
        }
    }

    #[test]
    fn light_and_contrast_do_not_matter_and_flat_pictures_have_no_features() {
        let pattern = |y: usize, x: usize| ((y * 3 + x * 7 + y * x) % 50) as u8;
        let plain = features(&grey(16, 24, |y, x| 2 * pattern(y, x)), [16, 24], 4);
        let bright = features(&grey(16, 24, |y, x| 4 * pattern(y, x) + 30), [16, 24], 4);
        for (a, b) in plain.iter().zip(&bright) {
            assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        assert_eq!(features(&[77; 256], [16, 16], 8), [0.0; 36]);
    }

    #[test]
    fn the_strongest_channel_counts_and_alpha_does_not() {
        let ramp = grey(16, 16, |y, x| (y * 5 + x * 9) as u8);
        let colour: Vec<u8> = ramp
            .iter()
            .enumerate()
            .flat_map(|(i, &byte)| [byte / 3, byte, 9, (i % 2 * 255) as u8])
            .collect();
        let of_colour = hog(&ImageView::from_u8(&colour, 16, 16, 4), 8).unwrap();
        assert_eq!(of_colour, features(&ramp, [16, 16], 8));
    }

    #[test]
    fn pictures_without_cells_are_refused() {
        let refused = |image: &ImageView, cell| hog(image, cell).unwrap_err().code();
        assert_eq!(
            refused(&ImageView::from_u8(&[0; 64], 8, 8, 1), 5),
            "bad-input"
        );
        assert_eq!(
            refused(&ImageView::from_u8(&[0; 64], 8, 8, 1), 0),
            "bad-input"
        );
        assert_eq!(
            refused(&ImageView::from_f32(&[0.0; 64], 8, 8, 1), 4),
            "bad-input"
        );
    }
}
