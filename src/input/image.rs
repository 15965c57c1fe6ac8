//! A borrowed picture, checked once before anything reads it.

use crate::{Error, Result};

/// Longest accepted side of a picture, in pixels; a square of it (2²⁸ pixels) is as much as a 32-bit address space holds.
pub const MAX_SIDE: usize = 1 << 14;

/// Longest side of what a processor makes, in pixels: at patch size 16 already 65 536 tokens, more than attention can hold.
pub const MAX_OUTPUT_SIDE: usize = 1 << 12;

/// Largest accepted magnitude of a float sample: far beyond any picture, and small enough that no filter can overflow.
pub(super) const MAX_SAMPLE: f32 = 1e6;

/// Samples of a picture.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// 0 to 255.
    U8(&'a [u8]),
    /// 0 to 1, nominally: values beyond are kept, non-finite ones refused.
    F32(&'a [f32]),
}

/// A borrowed picture, row by row from the top, the channels of a pixel side by side.
#[derive(Debug, Clone, Copy)]
pub struct ImageView<'a> {
    /// `height * width * channels` samples.
    pub pixels: Pixels<'a>,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA. Alpha is dropped, not blended, as Pillow's `convert("RGB")` does.
    pub channels: usize,
}

impl<'a> ImageView<'a> {
    /// A picture of 8-bit samples.
    pub fn from_u8(samples: &'a [u8], width: usize, height: usize, channels: usize) -> Self {
        Self {
            pixels: Pixels::U8(samples),
            width,
            height,
            channels,
        }
    }

    /// A picture of samples from 0 to 1.
    pub fn from_f32(samples: &'a [f32], width: usize, height: usize, channels: usize) -> Self {
        Self {
            pixels: Pixels::F32(samples),
            width,
            height,
            channels,
        }
    }

    /// Refuses pictures whose numbers contradict each other or that nothing sensible can be made of.
    pub(crate) fn validate(&self) -> Result<()> {
        let Self {
            width,
            height,
            channels,
            ..
        } = *self;
        check_picture([height, width])?;
        if !(1..=4).contains(&channels) {
            return Err(Error::BadInput(format!(
                "The picture has {channels} channels; it must have 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA)."
            )));
        }
        let samples = match self.pixels {
            Pixels::U8(samples) => samples.len(),
            Pixels::F32(samples) => samples.len(),
        };
        // In 64 bits: 2¹⁴ · 2¹⁴ · 4 is beyond what a 32-bit usize counts.
        let expected = width as u64 * height as u64 * channels as u64;
        if samples as u64 != expected {
            return Err(Error::BadInput(format!(
                "The picture has {samples} samples, but {width} × {height} pixels of {channels} channels need {expected}."
            )));
        }
        if let Pixels::F32(samples) = self.pixels
            && let Some(at) = samples
                .iter()
                .position(|value| !(-MAX_SAMPLE..=MAX_SAMPLE).contains(value))
        {
            return Err(Error::BadInput(format!(
                "Sample {at} of the picture is {}; samples must be finite, and from 0 to 1.",
                samples[at]
            )));
        }
        Ok(())
    }
}

/// Refuses pictures without pixels and pictures of too many.
pub(super) fn check_picture([height, width]: [usize; 2]) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::BadInput(format!(
            "The picture is empty: it has {width} × {height} pixels."
        )));
    }
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(Error::BadInput(format!(
            "The picture has {width} × {height} pixels; more than {MAX_SIDE} on a side cannot be used. Scale it down first."
        )));
    }
    Ok(())
}
