//! One decoded picture.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

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
        if reader.format() == Some(ImageFormat::Jpeg) && is_cut(bytes) {
            return Err(unreadable(name, "it ends before the picture does"));
        }
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

/// Whether a JPEG lacks its end. The decoder does not mind, and makes grey of what is missing.
fn is_cut(bytes: &[u8]) -> bool {
    const SCAN: u8 = 0xda;
    const END: [u8; 2] = [0xff, 0xd9];
    // From segment to segment, since one of them may hold a small JPEG with an end of its own.
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = *rest {
        if marker == SCAN {
            return !rest.windows(2).any(|pair| pair == END);
        }
        // Markers may be preceded by any number of 0xff.
        let length = if marker == 0xff {
            1
        } else {
            2 + usize::from(u16::from_be_bytes([high, low]))
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    // What the decoder makes of this, it says itself.
    false
}
