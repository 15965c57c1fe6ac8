//! Synthetic motion: a picture that moves over an empty canvas. What moves is real, how it moves is made up.

use super::Picture;
use crate::rng::{Generator, Stream};
use crate::{Error, Result};

/// Directions of motion, at even angles from the right, downwards first.
pub const DIRECTIONS: usize = 8;
/// Slowest speed, as a share of the fastest at which a picture stays on the canvas.
const SLOWEST: f32 = 0.5;

/// How pictures are set in motion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moving {
    /// Frames of a clip.
    pub frames: usize,
    /// Height and width of the canvas in pixels.
    pub canvas: [usize; 2],
    /// Decides, with the number of a picture, where it goes.
    pub seed: u64,
}

impl Moving {
    /// The clip of picture `number` of a set, and its direction, from 0 to below [`DIRECTIONS`]. The picture moves at one speed and
    /// never leaves the canvas; where it begins and how fast it is are drawn.
    ///
    /// # Errors
    /// [`Error::BadInput`] for a picture larger than the canvas.
    pub fn clip(&self, picture: &Picture, number: usize) -> Result<(Vec<Picture>, usize)> {
        let [height, width] = self.canvas;
        let (Some(rows), Some(columns)) = (
            height.checked_sub(picture.height),
            width.checked_sub(picture.width),
        ) else {
            return Err(Error::BadInput(format!(
                "{} has {} × {} pixels and cannot move on a canvas of {width} × {height}",
                picture.name, picture.width, picture.height
            )));
        };
        let mut random = Stream::new(self.seed, "motion", number as u64);
        let direction = (random.uniform() * DIRECTIONS as f32) as usize % DIRECTIONS;
        let angle = direction as f32 / DIRECTIONS as f32 * std::f32::consts::TAU;
        let heading = [angle.sin(), angle.cos()];
        let speed = SLOWEST + (1.0 - SLOWEST) * random.uniform();
        // The way along each axis: all of the room there is at the highest speed.
        let room = [rows as f32, columns as f32];
        let way: [f32; 2] = std::array::from_fn(|axis| heading[axis] * speed * room[axis]);
        let start: [f32; 2] = std::array::from_fn(|axis| {
            let free = room[axis] - way[axis].abs();
            let from = random.uniform() * free;
            if way[axis] < 0.0 {
                from - way[axis]
            } else {
                from
            }
        });
        let last = (self.frames.max(2) - 1) as f32;
        let frame = |time: usize| {
            let share = time as f32 / last;
            let at: [usize; 2] = std::array::from_fn(|axis| {
                let place = start[axis] + share * way[axis];
                place.round().clamp(0.0, room[axis]) as usize
            });
            self.drawn(picture, at)
        };
        Ok(((0..self.frames).map(frame).collect(), direction))
    }

    /// The picture with its corner at a place of an empty canvas.
    fn drawn(&self, picture: &Picture, [row, column]: [usize; 2]) -> Picture {
        let [height, width] = self.canvas;
        let channels = picture.channels;
        let mut samples = vec![0; height * width * channels];
        let line = picture.width * channels;
        for (y, from) in picture.samples.chunks_exact(line).enumerate() {
            let at = ((row + y) * width + column) * channels;
            samples[at..at + line].copy_from_slice(from);
        }
        Picture {
            name: picture.name.clone(),
            samples,
            width,
            height,
            channels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The centre of what is not empty, `[row, column]`.
    fn centre(frame: &Picture) -> [f32; 2] {
        let lit: Vec<usize> = (0..frame.samples.len())
            .filter(|&i| frame.samples[i] > 0)
            .collect();
        let mean = |of: &dyn Fn(usize) -> usize| {
            lit.iter().map(|&i| of(i) as f32).sum::<f32>() / lit.len() as f32
        };
        [mean(&|i| i / frame.width), mean(&|i| i % frame.width)]
    }

    #[test]
    fn pictures_move_where_their_label_says_and_stay_whole() {
        let picture = Picture {
            name: "a square".into(),
            samples: vec![200; 64],
            width: 8,
            height: 8,
            channels: 1,
        };
        let moving = Moving {
            frames: 6,
            canvas: [40, 48],
            seed: 1,
        };
        let mut seen = [0; DIRECTIONS];
        for number in 0..200 {
            let (clip, direction) = moving.clip(&picture, number).unwrap();
            assert_eq!(clip.len(), 6);
            seen[direction] += 1;
            for frame in &clip {
                assert_eq!(frame.samples.iter().filter(|&&v| v > 0).count(), 64);
            }
            let (first, last) = (centre(&clip[0]), centre(&clip[5]));
            let angle = direction as f32 / DIRECTIONS as f32 * std::f32::consts::TAU;
            for (axis, heading) in [angle.sin(), angle.cos()].into_iter().enumerate() {
                let moved = last[axis] - first[axis];
                match heading.abs() < 1e-3 {
                    true => assert_eq!(moved, 0.0),
                    false => assert!(moved * heading > 0.0, "{direction}: {moved}"),
                }
            }
            assert_eq!(moving.clip(&picture, number).unwrap().0, clip);
        }
        assert!(seen.iter().all(|&count| count > 10), "{seen:?}");
        let narrow = Moving {
            canvas: [7, 48],
            ..moving
        };
        assert_eq!(narrow.clip(&picture, 0).unwrap_err().code(), "bad-input");
    }
}
