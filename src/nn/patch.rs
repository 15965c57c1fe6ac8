//! Pictures and clips cut into patches.

/// The shape of a batch of clips: pictures are clips of one frame.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clips.
    pub batch: usize,
    /// Frames of each.
    pub frames: usize,
    /// Colour channels.
    pub channels: usize,
    /// Height and width in pixels.
    pub size: [usize; 2],
}

impl Shape {
    /// Values in the batch.
    pub fn values(&self) -> usize {
        self.batch * self.frames * self.channels * self.size[0] * self.size[1]
    }
}

/// Planar frames as the rows of a matrix, so that the patch convolution (kernel = stride = patch) is a linear layer.
///
/// `pixels [batch, frames, channels, height, width]` → `[batch, tokens, channels·tubelet·patch·patch]`, tokens in the order time,
/// row, column, and each row in the order of a convolution kernel's axes. Frames that a tubelet has beyond the clip's are its last
/// one again. `tokens` selects token indices per clip; `None` takes all.
///
/// # Panics
/// When `height` or `width` is no multiple of `patch`, or a token index is out of range: callers have checked both.
pub fn patches(
    pixels: &[f32],
    shape: Shape,
    [tubelet, patch]: [usize; 2],
    tokens: Option<&[Vec<usize>]>,
) -> Vec<f32> {
    let Shape {
        frames,
        channels,
        size: [height, width],
        ..
    } = shape;
    let (rows, columns) = (height / patch, width / patch);
    let plane = height * width;
    let all: Vec<usize> = (0..frames.div_ceil(tubelet) * rows * columns).collect();
    let row = channels * tubelet * patch * patch;
    let count = tokens.map_or(all.len(), |t| t.first().map_or(0, Vec::len));
    let mut out = Vec::with_capacity(shape.batch * count * row);
    for (b, clip) in pixels.chunks_exact(frames * channels * plane).enumerate() {
        for &token in tokens.map_or(&all, |t| &t[b]) {
            let (time, place) = (token / (rows * columns), token % (rows * columns));
            let corner = (place / columns) * patch * width + (place % columns) * patch;
            for channel in 0..channels {
                for frame in time * tubelet..(time + 1) * tubelet {
                    let frame = frame.min(frames - 1);
                    let start = (frame * channels + channel) * plane + corner;
                    for y in 0..patch {
                        out.extend_from_slice(&clip[start + y * width..][..patch]);
                    }
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Shape, patches};

    #[test]
    fn rows_follow_the_kernel_axes_and_tokens_the_raster() {
        // One picture, two channels, 2×4 pixels, patch 2: two tokens.
        let pixels: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let shape = Shape {
            batch: 1,
            frames: 1,
            channels: 2,
            size: [2, 4],
        };
        let rows = patches(&pixels, shape, [1, 2], None);
        assert_eq!(
            rows,
            [
                0., 1., 4., 5., 8., 9., 12., 13., 2., 3., 6., 7., 10., 11., 14., 15.
            ]
        );
        assert_eq!(patches(&pixels, shape, [1, 2], Some(&[vec![1]])), rows[8..]);
    }

    #[test]
    fn tubelets_go_through_time_within_a_channel() {
        // Two frames of two channels, 1×2 pixels, patch 1: frame, channel, column in the digits.
        let pixels = [0., 1., 10., 11., 100., 101., 110., 111.];
        let shape = Shape {
            batch: 1,
            frames: 2,
            channels: 2,
            size: [1, 2],
        };
        let rows = patches(&pixels, shape, [2, 1], None);
        assert_eq!(rows, [0., 100., 10., 110., 1., 101., 11., 111.]);
        let single = Shape { frames: 1, ..shape };
        assert_eq!(
            patches(&pixels[..4], single, [2, 1], None),
            [0., 0., 10., 10., 1., 1., 11., 11.]
        );
    }
}
