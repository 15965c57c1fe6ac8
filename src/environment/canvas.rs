//! What pictures of environments are drawn on: a square, in the units of the environment, of any number of pixels.

use crate::{Error, Result};

/// Longest side of a picture, in pixels.
pub const MAX_SIDE: usize = 1 << 11;

/// Red, green and blue from 0 to 1.
pub type Colour = [f64; 3];

/// A picture that is being drawn.
#[derive(Clone, Debug)]
pub struct Canvas {
    side: usize,
    /// Units of a pixel.
    pixel: f64,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// A canvas of `side` pixels for `extent` units, from 0 at the left and at the top.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a side of 0, or beyond [`MAX_SIDE`].
    pub fn new(side: usize, extent: f64, ground: Colour) -> Result<Self> {
        if !(1..=MAX_SIDE).contains(&side) {
            return Err(Error::BadInput(format!(
                "a picture of an environment has 1 to {MAX_SIDE} pixels on a side, not {side}"
            )));
        }
        Ok(Self {
            side,
            pixel: extent / side as f64,
            pixels: vec![ground; side * side],
        })
    }

    /// Colours each pixel by the share, from 0 to 1, that `share` gives for its middle.
    pub fn blend(&mut self, colour: Colour, share: impl Fn([f64; 2]) -> f64) {
        let (side, pixel) = (self.side, self.pixel);
        let middle = |i: usize| (i as f64 + 0.5) * pixel;
        for (i, under) in self.pixels.iter_mut().enumerate() {
            let share = share([middle(i % side), middle(i / side)]);
            for (under, over) in under.iter_mut().zip(colour) {
                *under += share * (over - *under);
            }
        }
    }

    /// A rectangle from `low` to `high`, `[x, y]`. Pixels at its border are coloured by the share that it covers.
    pub fn rectangle(&mut self, colour: Colour, low: [f64; 2], high: [f64; 2]) {
        let half = self.pixel / 2.0;
        let covered = |axis: usize, middle: f64| {
            let inside = (middle + half).min(high[axis]) - (middle - half).max(low[axis]);
            inside.max(0.0) / (2.0 * half)
        };
        self.blend(colour, |[x, y]| covered(0, x) * covered(1, y));
    }

    /// A dot that fades as a Gaussian of deviation `sigma`.
    pub fn glow(&mut self, colour: Colour, [cx, cy]: [f64; 2], sigma: f64) {
        self.blend(colour, |[x, y]| {
            let squared = (x - cx).powi(2) + (y - cy).powi(2);
            libm::exp(-squared / (2.0 * sigma * sigma))
        });
    }

    /// Everything nearer than `half` to the line between two points, whose ends are so round; soft over the width of a pixel.
    pub fn line(&mut self, colour: Colour, from: [f64; 2], to: [f64; 2], half: f64) {
        let way = [to[0] - from[0], to[1] - from[1]];
        let squared = way[0] * way[0] + way[1] * way[1];
        let pixel = self.pixel;
        self.blend(colour, |[x, y]| {
            let off = [x - from[0], y - from[1]];
            let along = (off[0] * way[0] + off[1] * way[1]) / squared.max(f64::MIN_POSITIVE);
            let along = along.clamp(0.0, 1.0);
            let away = (off[0] - along * way[0]).hypot(off[1] - along * way[1]);
            ((half - away) / pixel + 0.5).clamp(0.0, 1.0)
        });
    }

    /// The picture, `[side, side, 3]`.
    pub fn bytes(&self) -> Vec<u8> {
        let levels = self.pixels.iter().flatten();
        levels.map(|v| (255.0 * v).round() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLACK: Colour = [0.0; 3];
    const WHITE: Colour = [1.0; 3];

    fn red(canvas: &Canvas) -> Vec<u8> {
        canvas.bytes().chunks_exact(3).map(|p| p[0]).collect()
    }

    #[test]
    fn rectangles_cover_the_area_that_they_have() {
        // Four pixels of 2.5 units: from 1 to 6 is 0.6, 1, 0.4 of the first three, from 2.5 to 10 all but the first.
        let mut canvas = Canvas::new(4, 10.0, WHITE).unwrap();
        canvas.rectangle(BLACK, [1.0, 2.5], [6.0, 10.0]);
        let row = [102, 0, 153, 255];
        let expected = [[255; 4], row, row, row].concat();
        assert_eq!(red(&canvas), expected);
    }

    #[test]
    fn a_glow_is_a_gaussian() {
        let mut canvas = Canvas::new(3, 3.0, BLACK).unwrap();
        canvas.glow([1.0, 0.5, 0.0], [1.5, 1.5], 1.0);
        let level = |squared: f64| (255.0 * (-squared / 2.0).exp()).round() as u8;
        let (edge, corner) = (level(1.0), level(2.0));
        let expected = [corner, edge, corner, edge, 255, edge, corner, edge, corner];
        assert_eq!(red(&canvas), expected);
        assert_eq!(canvas.bytes()[12..15], [255, 128, 0]);
    }

    #[test]
    fn a_line_is_as_wide_and_as_long_as_it_is() {
        // Pixels of a unit: 20 long and 6 wide with half discs at the ends, 120 + 9π.
        let mut canvas = Canvas::new(40, 40.0, BLACK).unwrap();
        canvas.line(WHITE, [8.0, 14.0], [24.0, 26.0], 3.0);
        let area: f64 = red(&canvas).iter().map(|&v| f64::from(v) / 255.0).sum();
        let expected = 120.0 + 9.0 * std::f64::consts::PI;
        assert!(
            (area - expected).abs() < 0.02 * expected,
            "{area} {expected}"
        );
        let mut dot = Canvas::new(3, 3.0, BLACK).unwrap();
        dot.line(WHITE, [1.5, 1.5], [1.5, 1.5], 0.5);
        assert_eq!(red(&dot), [0, 0, 0, 0, 255, 0, 0, 0, 0]);
    }

    #[test]
    fn pictures_of_no_or_of_absurd_size_are_refused() {
        for side in [0, MAX_SIDE + 1, usize::MAX] {
            let error = Canvas::new(side, 1.0, WHITE).unwrap_err();
            assert_eq!(error.code(), "bad-input");
        }
    }
}
