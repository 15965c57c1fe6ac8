//! Pictures and clips cut into patches.

/// Planar frames as the rows of a matrix, so that the patch convolution (kernel = stride = patch) is a linear layer.
///
/// `pixels [batch, channels, height, width]` → `[batch, tokens, channels·patch·patch]`, tokens in raster order and each
/// row in the order of a convolution kernel's axes. `tokens` selects token indices per picture; `None` takes all.
///
/// # Panics
/// When `height` or `width` is no multiple of `patch`, or a token index is out of range: callers have checked both.
pub fn patches(
    pixels: &[f32],
    shape: [usize; 4],
    patch: usize,
    tokens: Option<&[Vec<usize>]>,
) -> Vec<f32> {
    let [batch, channels, height, width] = shape;
    let (rows, columns) = (height / patch, width / patch);
    let all: Vec<usize> = (0..rows * columns).collect();
    let mut out = Vec::with_capacity(batch * channels * height * width);
    for (b, picture) in pixels.chunks_exact(channels * height * width).enumerate() {
        for &token in tokens.map_or(&all, |t| &t[b]) {
            let corner = (token / columns) * patch * width + (token % columns) * patch;
            for plane in picture.chunks_exact(height * width) {
                for y in 0..patch {
                    out.extend_from_slice(&plane[corner + y * width..][..patch]);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::patches;

    #[test]
    fn rows_follow_the_kernel_axes_and_tokens_the_raster() {
        // One picture, two channels, 2×4 pixels, patch 2: two tokens.
        let pixels: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let rows = patches(&pixels, [1, 2, 2, 4], 2, None);
        assert_eq!(
            rows,
            [
                0., 1., 4., 5., 8., 9., 12., 13., 2., 3., 6., 7., 10., 11., 14., 15.
            ]
        );
        assert_eq!(
            patches(&pixels, [1, 2, 2, 4], 2, Some(&[vec![1]])),
            rows[8..]
        );
    }
}
