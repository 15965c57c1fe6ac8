//! One decoded picture.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageReader};

use super::unreadable;
use crate::input::{ImageView, MAX_SIDE};
use crate::{Error, Result};

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Where it is from: a path, or a file and a place in it.
    pub name: String,
    /// Rows from the top, the channels of a pixel side by side.
    pub samples: Vec<u8>,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 grey, 3 RGB.
    pub channels: usize,
}

impl Picture {
    /// Decodes a JPEG or PNG, upright as its EXIF orientation says; alpha is dropped, and what is grey stays so.
    ///
    /// # Errors
    /// [`Error::BadInput`], with the name, if it is none, or is damaged or too large.
    pub fn decode(name: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |error: image::ImageError| unreadable(name, error);
        let reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|error| unreadable(name, error))?;
        let mut decoder = reader.into_decoder().map_err(bad)?;
        let (width, height) = decoder.dimensions();
        if width.max(height) as usize > MAX_SIDE {
            return Err(Error::BadInput(format!(
                "{name} has {width} × {height} pixels; more than {MAX_SIDE} on a side cannot be used. Scale it down first."
            )));
        }
        let orientation = decoder.orientation().map_err(bad)?;
        let mut image = DynamicImage::from_decoder(decoder).map_err(bad)?;
        image.apply_orientation(orientation);
        let (width, height) = (image.width() as usize, image.height() as usize);
        let (samples, channels) = if image.color().has_color() {
            (image.into_rgb8().into_raw(), 3)
        } else {
            (image.into_luma8().into_raw(), 1)
        };
        Ok(Self {
            name: name.into(),
            samples,
            width,
            height,
            channels,
        })
    }

    /// What processors and augmentations take.
    pub fn view(&self) -> ImageView<'_> {
        ImageView::from_u8(&self.samples, self.width, self.height, self.channels)
    }
}
