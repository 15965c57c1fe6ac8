//! Changes to the samples of interleaved byte pictures of 1 or 3 channels, in place.

use super::processor::grey_u8;
use super::resize::reserved;
use crate::Result;

/// A change of colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Adjustment {
    /// Factor of distance from black.
    Brightness(f64),
    /// Factor of distance from the mean grey.
    Contrast(f64),
    /// Factor of distance from the same picture without colour.
    Saturation(f64),
    /// Turns of the colour circle.
    Hue(f64),
}

/// Exchanges left and right of `[height, width, channels]`.
pub(super) fn flip(samples: &mut [u8], width: usize, channels: usize) {
    for row in samples.chunks_exact_mut(width * channels) {
        for left in 0..width / 2 {
            let right = width - 1 - left;
            for channel in 0..channels {
                row.swap(left * channels + channel, right * channels + channel);
            }
        }
    }
}

/// Brightness, contrast and saturation as Pillow's `ImageEnhance`. Hue as torchvision turns it for tensors: Pillow's own
/// conversion keeps 8 bits of hue and saturation, which changes colours even when it turns by nothing.
pub(super) fn adjust(samples: &mut [u8], channels: usize, adjustment: Adjustment) {
    let colour = channels == 3;
    match adjustment {
        Adjustment::Brightness(factor) => blend(samples, factor, |_| [0]),
        Adjustment::Contrast(factor) => {
            let mean = mean_grey(samples, channels);
            blend(samples, factor, |_| [mean]);
        }
        Adjustment::Saturation(factor) if colour => {
            blend(samples, factor, |pixel| [grey_u8(pixel); 3]);
        }
        Adjustment::Hue(turns) if colour => {
            for pixel in samples.chunks_exact_mut(3) {
                let turned = turned([pixel[0], pixel[1], pixel[2]], turns as f32);
                pixel.copy_from_slice(&turned);
            }
        }
        Adjustment::Saturation(_) | Adjustment::Hue(_) => {}
    }
}

/// `Image.blend` of what `origin` makes of a pixel (0) and the pixel (1), beyond both as well; rounded down.
pub(super) fn blend<const N: usize>(
    samples: &mut [u8],
    factor: f64,
    origin: impl Fn(&[u8]) -> [u8; N],
) {
    let factor = factor as f32;
    for pixel in samples.chunks_exact_mut(N) {
        for (from, sample) in origin(pixel).iter().zip(pixel) {
            let from = f32::from(*from);
            *sample = (from + factor * (f32::from(*sample) - from)) as u8;
        }
    }
}

/// The rounded mean of the picture without colour.
fn mean_grey(samples: &[u8], channels: usize) -> u8 {
    let grey = |pixel: &[u8]| match pixel {
        [grey] => *grey,
        pixel => grey_u8(pixel),
    };
    let sum: u64 = samples
        .chunks_exact(channels)
        .map(|p| u64::from(grey(p)))
        .sum();
    (sum as f64 / (samples.len() / channels) as f64 + 0.5) as u8
}

/// A colour whose hue is turned by so much of a circle, at the same saturation and value (HSV).
fn turned(rgb: [u8; 3], turns: f32) -> [u8; 3] {
    let [r, g, b] = rgb.map(|byte| f32::from(byte) / 255.0);
    let value = r.max(g).max(b);
    let chroma = value - r.min(g).min(b);
    if chroma == 0.0 {
        return rgb;
    }
    // In sixths of a circle, as the formula below wants it.
    let hue = if value == r {
        (g - b) / chroma
    } else if value == g {
        2.0 + (b - r) / chroma
    } else {
        4.0 + (r - g) / chroma
    };
    let hue = hue + turns * 6.0;
    [5.0, 3.0, 1.0].map(|offset| {
        let k = (offset + hue).rem_euclid(6.0);
        let sample = value - chroma * k.min(4.0 - k).clamp(0.0, 1.0);
        // torchvision's conversion to bytes: each of the 256 has an equal share of 0 to 1.
        (sample * 255.999) as u8
    })
}

/// Weights at whole distances from the centre, of sum 1.
pub(super) fn gaussian(kernel: usize, sigma: f64) -> Vec<f32> {
    let centre = (kernel / 2) as f64;
    let weights: Vec<f64> = (0..kernel)
        .map(|at| libm::exp(-0.5 * ((at as f64 - centre) / sigma).powi(2)))
        .collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| (weight / sum) as f32).collect()
}

/// Convolves `[height, width, channels]` with the kernel along both axes; rounded once, at the end.
pub(super) fn blur_rows_and_columns(
    samples: &mut [u8],
    [height, width]: [usize; 2],
    channels: usize,
    kernel: &[f32],
) -> Result<()> {
    let radius = kernel.len() / 2;
    let line = width * channels;
    let mut across = reserved(samples.len())?;
    across.resize(samples.len(), 0f32);
    let mut padded = Vec::with_capacity((width + 2 * radius) * channels);
    for (row, out) in samples
        .chunks_exact(line)
        .zip(across.chunks_exact_mut(line))
    {
        padded.clear();
        for at in 0..width + 2 * radius {
            let from = reflected(at, radius, width) * channels;
            padded.extend(row[from..from + channels].iter().copied().map(f32::from));
        }
        for (tap, &weight) in kernel.iter().enumerate() {
            add(out, weight, &padded[tap * channels..]);
        }
    }
    let mut sums = vec![0f32; line];
    for (y, out) in samples.chunks_exact_mut(line).enumerate() {
        sums.fill(0.0);
        for (tap, &weight) in kernel.iter().enumerate() {
            let from = reflected(y + tap, radius, height) * line;
            add(&mut sums, weight, &across[from..]);
        }
        for (sample, sum) in out.iter_mut().zip(&sums) {
            *sample = sum.round_ties_even() as u8;
        }
    }
    Ok(())
}

fn add(sums: &mut [f32], weight: f32, samples: &[f32]) {
    for (sum, sample) in sums.iter_mut().zip(samples) {
        *sum += weight * sample;
    }
}

/// Place `at` of a line with `radius` places before and behind it, mirrored without repeating the border.
fn reflected(at: usize, radius: usize, length: usize) -> usize {
    let at = at.abs_diff(radius);
    if at < length {
        at
    } else {
        2 * (length - 1) - at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_is_its_own_inverse_and_mirrors_columns() {
        for width in [1, 2, 5, 6] {
            let samples: Vec<u8> = (0..9 * width as u8).collect();
            let mut flipped = samples.clone();
            flip(&mut flipped, width, 3);
            for y in 0..3 {
                for x in 0..width {
                    let [from, to] = [x, width - 1 - x].map(|x| (y * width + x) * 3);
                    assert_eq!(flipped[to..to + 3], samples[from..from + 3]);
                }
            }
            flip(&mut flipped, width, 3);
            assert_eq!(flipped, samples);
        }
    }

    #[test]
    fn adjustments_by_a_factor_are_blends() {
        let samples = [100, 0, 200, 50, 50, 50];
        let adjusted = |adjustment| {
            let mut copy = samples;
            adjust(&mut copy, 3, adjustment);
            copy
        };
        for same in [
            Adjustment::Brightness(1.0),
            Adjustment::Contrast(1.0),
            Adjustment::Saturation(1.0),
            Adjustment::Hue(0.0),
        ] {
            assert_eq!(adjusted(same), samples, "{same:?}");
        }
        assert_eq!(
            adjusted(Adjustment::Brightness(0.5)),
            [50, 0, 100, 25, 25, 25]
        );
        assert_eq!(
            adjusted(Adjustment::Brightness(2.0)),
            [200, 0, 255, 100, 100, 100]
        );
        // Greys 53 (52.7) and 50, mean 51.5, rounded up to 52.
        assert_eq!(adjusted(Adjustment::Contrast(0.0)), [52; 6]);
        assert_eq!(
            adjusted(Adjustment::Contrast(0.5)),
            [76, 26, 126, 51, 51, 51]
        );
        assert_eq!(
            adjusted(Adjustment::Contrast(3.0)),
            [196, 0, 255, 46, 46, 46]
        );
        assert_eq!(
            adjusted(Adjustment::Saturation(0.0)),
            [53, 53, 53, 50, 50, 50]
        );
        assert_eq!(
            adjusted(Adjustment::Saturation(2.0)),
            [147, 0, 255, 50, 50, 50]
        );
    }

    #[test]
    fn hue_turns_colours_and_a_full_turn_is_none() {
        let third = 1.0 / 3.0;
        assert_eq!(turned([200, 10, 10], third), [10, 200, 10]);
        assert_eq!(turned([200, 10, 10], -third), [10, 10, 200]);
        assert_eq!(turned([200, 10, 10], 0.5), [10, 200, 200]);
        assert_eq!(turned([255, 255, 0], third), [0, 255, 255]);
        assert_eq!(turned([77, 77, 77], 0.3), [77, 77, 77]);
        for r in (0..=255).step_by(5) {
            for g in (0..=255).step_by(3) {
                for b in (0..=255).step_by(17) {
                    let rgb = [r, g, b];
                    for turns in [0.0, 1.0, -1.0] {
                        assert_eq!(turned(rgb, turns), rgb, "{turns}");
                    }
                }
            }
        }
    }

    #[test]
    fn blur_keeps_constants_and_makes_the_kernel_of_an_impulse() {
        let mut constant = vec![137; 9 * 11 * 3];
        blur_rows_and_columns(&mut constant, [9, 11], 3, &gaussian(7, 1.3)).unwrap();
        assert_eq!(constant, vec![137; 9 * 11 * 3]);

        let mut impulse = vec![0; 15 * 13 * 3];
        let at = |y: usize, x: usize| (y * 13 + x) * 3 + 1;
        impulse[at(7, 6)] = 255;
        blur_rows_and_columns(&mut impulse, [15, 13], 3, &gaussian(5, 0.8)).unwrap();
        let weight = |distance: i32| (-0.5 * (f64::from(distance) / 0.8).powi(2)).exp();
        let sum: f64 = (-2..=2).map(weight).sum();
        for y in 0..15i32 {
            for x in 0..13i32 {
                let inside = (y - 7).abs() <= 2 && (x - 6).abs() <= 2;
                let share = if inside {
                    weight(y - 7) * weight(x - 6) / (sum * sum)
                } else {
                    0.0
                };
                let byte = impulse[at(y as usize, x as usize)];
                assert_eq!(byte, (255.0 * share).round() as u8, "{y} {x}");
            }
        }
        assert!(
            impulse
                .chunks_exact(3)
                .all(|pixel| pixel[0] == 0 && pixel[2] == 0)
        );
    }

    #[test]
    fn blur_mirrors_the_border_without_repeating_it() {
        // Weights 1/4, 1/2, 1/4, by hand: a line 80, 0, 40 continues as 0, [80, 0, 40], 0.
        let kernel = [0.25, 0.5, 0.25];
        let mut rows = [80, 0, 40, 80, 0, 40];
        blur_rows_and_columns(&mut rows, [2, 3], 1, &kernel).unwrap();
        assert_eq!(rows, [40, 30, 20, 40, 30, 20]);
        let mut columns = [80, 80, 0, 0, 40, 40];
        blur_rows_and_columns(&mut columns, [3, 2], 1, &kernel).unwrap();
        assert_eq!(columns, [40, 40, 30, 30, 20, 20]);
    }
}
