//! The published image processors: what `preprocessor_config.json` asks for, applied to a picture.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::image::{ImageView, MAX_OUTPUT_SIDE, MAX_SAMPLE, Pixels, check_picture};
use super::resize::{Filter, Geometry, Library, Sampling, reserved, resize_f32, resize_u8};
use crate::config::ModelConfig;
use crate::{Error, Result};

/// Longest accepted `preprocessor_config.json`, in bytes; real ones have a few hundred.
pub const MAX_CONFIG_BYTES: usize = 64 << 10;
/// Mean of ImageNet's pixels from 0 to 1, red, green and blue, as torchvision documents it.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Their standard deviation.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// What is done to a picture before a model sees it: resize, centre crop, rescale, normalise.
///
/// Bytes are resized as transformers does it since version 5, with torchvision: antialiased, the width first, rounded to
/// bytes after each pass. Older versions used Pillow, whose finer weights change under 1 % of the bytes, by one. Floats
/// are resized without rounding.
///
/// Serializes to the keys of `preprocessor_config.json`, which [`Processor::from_json`] reads back.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "Config")]
pub struct Processor {
    size: Option<Size>,
    filter: Filter,
    crop: Option<[usize; 2]>,
    rescale: Option<f64>,
    normalize: bool,
    mean: Vec<f64>,
    std: Vec<f64>,
}

/// What a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    /// `[height, width]`; proportions are not kept.
    Exact([usize; 2]),
    /// The shorter side to this, the longer one in proportion, rounded down.
    ShortestEdge(usize),
}

/// How a picture of one size passes through.
struct Passage {
    input: [usize; 2],
    resized: [usize; 2],
    /// Rows and columns of the resized picture that survive the crop.
    window: [Range<usize>; 2],
    output: [usize; 2],
    /// Where the window begins in the output: beyond 0 if the crop is larger than the picture.
    offset: [usize; 2],
}

/// The shortest edge to which published evaluations of V-JEPA resize before they crop. V-JEPA 2-AC's planner crops the middle of
/// a frame as large as it goes.
pub fn evaluated_edge(config: &ModelConfig) -> usize {
    let [height, width] = config.image_size;
    let edge = height.max(width);
    match config.predictor.as_ref().and_then(|p| p.actions) {
        Some(_) => edge,
        None => edge * 256 / 224,
    }
}

/// What the file with a model's processor is called in a Hugging Face folder.
pub fn file_name(config: &ModelConfig) -> &'static str {
    match config.is_video() {
        true => "video_preprocessor_config.json",
        false => "preprocessor_config.json",
    }
}

impl Processor {
    /// For checkpoints without a processor file: a straight bilinear resize to `[height, width]`, as the published I-JEPA
    /// processors do, and the mean and standard deviation of ImageNet, because those were used in training. (Processor
    /// files may hold others, 0.5 mostly; a file that is there wins.)
    pub fn default_for(image_size: [usize; 2]) -> Result<Self> {
        let processor = Self {
            size: Some(Size::Exact(image_size)),
            filter: Filter::Bilinear,
            crop: None,
            rescale: Some(1.0 / 255.0),
            normalize: true,
            mean: IMAGENET_MEAN.to_vec(),
            std: IMAGENET_STD.to_vec(),
        };
        processor.checked()
    }

    /// For a model without a processor file: [`default_for`](Self::default_for) pictures; for clips the published evaluation's resize
    /// of the shortest edge to `256 / 224` of the crop (292 for 256, 438 for 384), centre crop and ImageNet's statistics.
    pub fn published_for(config: &ModelConfig) -> Result<Self> {
        let processor = Self::default_for(config.image_size)?;
        if !config.is_video() {
            return Ok(processor);
        }
        Self {
            size: Some(Size::ShortestEdge(evaluated_edge(config))),
            crop: Some(config.image_size),
            ..processor
        }
        .checked()
    }

    /// Changes nothing but the layout: for float pictures that are model input already.
    pub fn identity() -> Self {
        Self {
            size: None,
            filter: Filter::Nearest,
            crop: None,
            rescale: Some(1.0 / 255.0),
            normalize: false,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
        }
    }

    /// Reads the text of a `preprocessor_config.json` or `video_preprocessor_config.json`.
    ///
    /// Keys that are absent or null have the values of transformers' `ViTImageProcessor`, the class of the published
    /// I-JEPA processors; as there, a plain number as `size` is a square and a list is `[height, width]`. Unknown keys
    /// are ignored, and so is `do_convert_rgb`: a picture becomes RGB, or grey if there is one mean only.
    pub fn from_json(text: &str) -> Result<Self> {
        if text.len() > MAX_CONFIG_BYTES {
            return Err(bad_config(format!(
                "preprocessor_config.json has {} bytes, of at most {MAX_CONFIG_BYTES}",
                text.len()
            )));
        }
        // serde would take a list for the keys in their order.
        if !text.trim_start().starts_with('{') {
            return Err(bad_config("preprocessor_config.json is not a JSON object"));
        }
        let config: Config = serde_json::from_str(text)
            .map_err(|error| bad_config(format!("preprocessor_config.json: {error}")))?;
        let on = |switch: Option<bool>| switch.unwrap_or(true);

        let size = on(config.do_resize)
            .then(|| config.size.unwrap_or(SizeField::Side(224)).size())
            .transpose()?;
        let crop = match (config.do_center_crop, config.crop_size) {
            (Some(true), Some(crop)) => match crop.size()? {
                Size::Exact(crop) => Some(crop),
                Size::ShortestEdge(_) => {
                    return Err(bad_config("crop_size must have height and width"));
                }
            },
            (Some(true), None) => {
                return Err(bad_config(
                    "do_center_crop is set, but crop_size is missing",
                ));
            }
            _ => None,
        };
        let mean = config.image_mean.unwrap_or(Statistic::All(0.5));
        let std = config.image_std.unwrap_or(Statistic::All(0.5));
        let channels = mean.channels().or(std.channels()).unwrap_or(3);
        let processor = Self {
            size,
            filter: config
                .resample
                .map_or(Ok(Filter::Bilinear), |resample| resample.filter())?,
            crop,
            rescale: on(config.do_rescale).then(|| config.rescale_factor.unwrap_or(1.0 / 255.0)),
            normalize: on(config.do_normalize),
            mean: mean.per_channel(channels),
            std: std.per_channel(channels),
        };
        processor.checked()
    }

    /// The same treatment towards another resolution, `[height, width]`. A crop keeps the share of the picture that it
    /// had; a processor that keeps proportions without cropping starts to crop, since its output would not be fixed.
    pub fn with_size(mut self, size: [usize; 2]) -> Result<Self> {
        if !sides_fit(size) {
            return Err(Error::BadInput(format!(
                "Pictures cannot be resized to {} × {}; each side must be from 1 to {MAX_OUTPUT_SIDE}.",
                size[1], size[0]
            )));
        }
        let [height, width] = size;
        let (resize, crop) = match (self.size, self.crop) {
            (Some(Size::ShortestEdge(edge)), Some([rows, columns])) => {
                let edge = (edge * height / rows).max(edge * width / columns);
                (Size::ShortestEdge(edge), Some(size))
            }
            (Some(Size::ShortestEdge(_)), None) => {
                (Size::ShortestEdge(height.max(width)), Some(size))
            }
            (Some(Size::Exact(whole)), Some([rows, columns])) => (
                Size::Exact([whole[0] * height / rows, whole[1] * width / columns]),
                Some(size),
            ),
            (Some(Size::Exact(_)), None) | (None, _) => (Size::Exact(size), None),
        };
        self.size = Some(resize);
        self.crop = crop;
        self.checked()
    }

    /// The same treatment with another mean and standard deviation, of values from 0 to 1; one of each makes it grey.
    pub fn with_statistics(mut self, mean: &[f64], std: &[f64]) -> Result<Self> {
        self.normalize = true;
        self.mean = mean.to_vec();
        self.std = std.to_vec();
        self.checked()
    }

    /// What is subtracted of each channel.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// What each channel is then divided by.
    pub fn std(&self) -> &[f64] {
        &self.std
    }

    /// Channels of the output: 3, or 1 for grey.
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// `[height, width]` of every output, or `None` where it depends on the picture.
    pub fn output_size(&self) -> Option<[usize; 2]> {
        match (self.crop, self.size) {
            (Some(crop), _) => Some(crop),
            (None, Some(Size::Exact(size))) => Some(size),
            _ => None,
        }
    }

    /// `[height, width]` of the output for a picture of `[height, width]`.
    pub fn output_size_for(&self, picture: [usize; 2]) -> Result<[usize; 2]> {
        check_picture(picture)?;
        Ok(self.passage(picture)?.output)
    }

    /// Model input of one picture, planar: `[channels, height, width]`.
    pub fn apply(&self, image: &ImageView) -> Result<Vec<f32>> {
        image.validate()?;
        let passage = self.passage([image.height, image.width])?;
        // Where nothing is resized, nothing is filtered either.
        let filter = if passage.resized == passage.input {
            Filter::Nearest
        } else {
            self.filter
        };
        match image.pixels {
            Pixels::U8(samples) => {
                let (samples, geometry) =
                    self.source(samples, image.channels, &passage, grey_u8)?;
                let resized = resize_u8(&samples, &geometry, Library::Torchvision(filter))?;
                self.planar(&resized, &passage, f64::from)
            }
            Pixels::F32(samples) => {
                let (samples, geometry) =
                    self.source(samples, image.channels, &passage, grey_f32)?;
                let resized = resize_f32(
                    &samples,
                    &geometry,
                    Sampling {
                        filter,
                        antialias: true,
                    },
                )?;
                self.planar(&resized, &passage, |sample| f64::from(sample) * 255.0)
            }
        }
    }

    fn passage(&self, input: [usize; 2]) -> Result<Passage> {
        let resized = match self.size {
            None => input,
            Some(Size::Exact(size)) => size,
            Some(Size::ShortestEdge(edge)) => {
                let shortest = input[0].min(input[1]);
                input.map(|side| edge * side / shortest)
            }
        };
        let output = self.crop.unwrap_or(resized);
        if output.iter().any(|&side| side > MAX_OUTPUT_SIDE) {
            return Err(Error::BadInput(format!(
                "The picture of {} × {} pixels would become {} × {}; more than {MAX_OUTPUT_SIDE} on a side cannot be used.",
                input[1], input[0], output[1], output[0]
            )));
        }
        let window = [0, 1].map(|axis| {
            let start = resized[axis].saturating_sub(output[axis]) / 2;
            start..start + output[axis].min(resized[axis])
        });
        let offset = [0, 1].map(|axis| output[axis].saturating_sub(resized[axis]) / 2);
        Ok(Passage {
            input,
            resized,
            window,
            output,
            offset,
        })
    }

    /// The samples to resize. Channels that are not needed, alpha above all, are skipped while resizing and need no copy;
    /// colour that becomes grey does so before it is resized, as in Pillow.
    fn source<'a, T: Copy>(
        &self,
        samples: &'a [T],
        channels: usize,
        passage: &Passage,
        grey: impl Fn(&[T]) -> T,
    ) -> Result<(Cow<'a, [T]>, Geometry)> {
        let colour = channels >= 3;
        let (samples, channels) = if colour && self.channels() == 1 {
            let mut copy = reserved(samples.len() / channels)?;
            copy.extend(samples.chunks_exact(channels).map(grey));
            (Cow::Owned(copy), 1)
        } else {
            (Cow::Borrowed(samples), channels)
        };
        let geometry = Geometry {
            input: passage.input,
            channels,
            kept: if channels >= 3 { 3 } else { 1 },
            resized: passage.resized,
            window: passage.window.clone(),
        };
        Ok((samples, geometry))
    }

    /// Rescales and normalises interleaved samples into planes; grey ones go to every plane.
    fn planar<T: Copy>(
        &self,
        samples: &[T],
        passage: &Passage,
        byte: impl Fn(T) -> f64,
    ) -> Result<Vec<f32>> {
        let [height, width] = passage.output;
        let [rows, columns] = passage.window.clone().map(|window| window.len());
        let kept = samples.len() / (rows * columns);
        let plane = height * width;
        let mut planes = reserved(plane * self.channels())?;
        for channel in 0..self.channels() {
            let first = planes.len();
            let normalized = self.normalizer(channel);
            // What a crop asks for beyond the picture is black.
            planes.resize(first + plane, normalized(0.0));
            for (row, samples) in samples.chunks_exact(columns * kept).enumerate() {
                let start = first + (passage.offset[0] + row) * width + passage.offset[1];
                let samples = samples[channel.min(kept - 1)..].iter().step_by(kept);
                for (value, &sample) in planes[start..start + columns].iter_mut().zip(samples) {
                    *value = normalized(byte(sample));
                }
            }
        }
        Ok(planes)
    }

    /// Makes model input of a sample of this channel, given from 0 to 255. Rescaling is folded into mean and deviation, in
    /// single precision, as torchvision-backed processors do it: the results are the same bits.
    fn normalizer(&self, channel: usize) -> impl Fn(f64) -> f32 {
        let rescale = self.rescale.unwrap_or(1.0);
        let inverse = (1.0 / rescale) as f32;
        let mean = self.mean[channel] as f32 * inverse;
        let std = self.std[channel] as f32 * inverse;
        let normalize = self.normalize;
        move |byte| {
            if normalize {
                (byte as f32 - mean) / std
            } else {
                (byte * rescale) as f32
            }
        }
    }

    fn checked(self) -> Result<Self> {
        match self.size {
            Some(Size::Exact(size)) => check_sides("size", size)?,
            Some(Size::ShortestEdge(edge)) => check_sides("size", [edge; 2])?,
            None => {}
        }
        if let Some(crop) = self.crop {
            check_sides("crop_size", crop)?;
        }
        let channels = self.channels();
        if !matches!(channels, 1 | 3) || self.std.len() != channels {
            return Err(bad_config(format!(
                "image_mean has {channels} values and image_std {}; both must have 3, or 1 for grey",
                self.std.len()
            )));
        }
        if let Some(std) = self.std.iter().find(|std| std.is_nan() || **std <= 0.0) {
            return Err(bad_config(format!("image_std must be above 0, not {std}")));
        }
        // Twice the largest sample, since sharpening filters overshoot.
        let extreme = 255.0 * 2.0 * f64::from(MAX_SAMPLE);
        let finite = (0..channels)
            .map(|channel| self.normalizer(channel))
            .all(|normalized| normalized(-extreme).is_finite() && normalized(extreme).is_finite());
        if !finite {
            return Err(bad_config(
                "rescale_factor, image_mean and image_std lead to values that are not finite",
            ));
        }
        Ok(self)
    }
}

/// Pillow's conversion to mode "L".
pub(super) fn grey_u8(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + (1 << 15)) >> 16) as u8
}

/// The same weights without rounding (ITU-R BT.601).
fn grey_f32(pixel: &[f32]) -> f32 {
    0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
}

fn sides_fit(sides: [usize; 2]) -> bool {
    sides
        .iter()
        .all(|side| (1..=MAX_OUTPUT_SIDE).contains(side))
}

fn check_sides(name: &str, sides: [usize; 2]) -> Result<()> {
    if sides_fit(sides) {
        return Ok(());
    }
    Err(bad_config(format!(
        "{name} is {} × {}; each side must be from 1 to {MAX_OUTPUT_SIDE}",
        sides[0], sides[1]
    )))
}

fn bad_config(why: impl Display) -> Error {
    Error::BadConfig(format!("The image processor cannot be configured: {why}."))
}

/// The file, key by key.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct Config {
    do_resize: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<SizeField>,
    resample: Option<Resample>,
    do_center_crop: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crop_size: Option<SizeField>,
    do_rescale: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rescale_factor: Option<f64>,
    do_normalize: Option<bool>,
    image_mean: Option<Statistic>,
    image_std: Option<Statistic>,
}

#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "a size must be a whole number or an object of whole numbers"
)]
enum SizeField {
    Side(usize),
    Edges(Edges),
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(default)]
struct Edges {
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shortest_edge: Option<usize>,
    #[serde(skip_serializing)]
    longest_edge: Option<usize>,
    #[serde(skip_serializing)]
    max_height: Option<usize>,
    #[serde(skip_serializing)]
    max_width: Option<usize>,
}

impl SizeField {
    fn size(self) -> Result<Size> {
        let edges = match self {
            Self::Side(side) => return Ok(Size::Exact([side; 2])),
            Self::Edges(edges) => edges,
        };
        match edges {
            Edges {
                height: Some(height),
                width: Some(width),
                ..
            } if edges == Edges::exact([height, width]) => Ok(Size::Exact([height, width])),
            Edges {
                shortest_edge: Some(edge),
                ..
            } if edges == Edges::shortest(edge) => Ok(Size::ShortestEdge(edge)),
            _ => Err(bad_config(
                "a size must have height and width, or shortest_edge, and nothing else",
            )),
        }
    }
}

impl Edges {
    fn exact([height, width]: [usize; 2]) -> Self {
        Self {
            height: Some(height),
            width: Some(width),
            ..Self::default()
        }
    }

    fn shortest(edge: usize) -> Self {
        Self {
            shortest_edge: Some(edge),
            ..Self::default()
        }
    }
}

/// A filter by Pillow's number or name.
#[derive(Debug, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "resample must be a number from 0 to 5 or the name of a filter"
)]
enum Resample {
    Code(usize),
    Name(String),
}

impl Resample {
    fn filter(&self) -> Result<Filter> {
        let filter = match self {
            Self::Code(code) => Filter::ALL.get(*code).copied(),
            Self::Name(name) => Filter::ALL
                .into_iter()
                .find(|filter| name.eq_ignore_ascii_case(filter.name())),
        };
        filter.ok_or_else(|| {
            let names = Filter::ALL.map(Filter::name).join(", ");
            bad_config(format!("resample must be 0 to 5 or one of {names}"))
        })
    }
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(
    untagged,
    expecting = "image_mean and image_std must be lists of numbers"
)]
enum Statistic {
    All(f64),
    PerChannel(Vec<f64>),
}

impl Statistic {
    fn channels(&self) -> Option<usize> {
        match self {
            Self::All(_) => None,
            Self::PerChannel(values) => Some(values.len()),
        }
    }

    fn per_channel(self, channels: usize) -> Vec<f64> {
        match self {
            Self::All(value) => vec![value; channels],
            Self::PerChannel(values) => values,
        }
    }
}

impl From<Processor> for Config {
    fn from(processor: Processor) -> Self {
        Self {
            do_resize: Some(processor.size.is_some()),
            size: processor.size.map(|size| {
                SizeField::Edges(match size {
                    Size::Exact(size) => Edges::exact(size),
                    Size::ShortestEdge(edge) => Edges::shortest(edge),
                })
            }),
            resample: Filter::ALL
                .iter()
                .position(|filter| *filter == processor.filter)
                .map(Resample::Code),
            do_center_crop: Some(processor.crop.is_some()),
            crop_size: processor
                .crop
                .map(|crop| SizeField::Edges(Edges::exact(crop))),
            do_rescale: Some(processor.rescale.is_some()),
            rescale_factor: processor.rescale,
            do_normalize: Some(processor.normalize),
            image_mean: Some(Statistic::PerChannel(processor.mean)),
            image_std: Some(Statistic::PerChannel(processor.std)),
        }
    }
}
