//! Random views for training: crop, flip, colour, blur, as torchvision's transforms make them of the pictures that Pillow
//! loads. [`Augmentation`] describes them, with the published recipes as presets; [`Augmenter`] makes them.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::image::{ImageView, MAX_OUTPUT_SIDE, Pixels, check_picture};
use super::processor::grey_u8;
use super::resize::{Filter, Geometry, Library, Sampling, reserved, resize_f32, resize_u8};
use super::retouch::{Adjustment, adjust, blend, blur_rows_and_columns, flip, gaussian};
use crate::rng::Generator;
use crate::{Error, Result};

/// How often a crop of the drawn area and aspect may stick out of the picture before the centre is taken.
const CROP_TRIES: usize = 10;

/// Random changes to a picture, in the order in which they are made: crop, flip, jitter, grey, blur, solarise.
///
/// In JSON only `size` is required; what is left out is torchvision's default for a crop, and nothing for the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Augmentation {
    /// `[height, width]` of the view, in pixels.
    pub size: [usize; 2],
    /// Least and greatest share of the picture's area that is cropped.
    #[serde(default = "torchvision_scale")]
    pub scale: [f64; 2],
    /// Least and greatest width over height of the crop; drawn evenly on a logarithmic scale.
    #[serde(default = "torchvision_aspect")]
    pub aspect: [f64; 2],
    /// How the crop is resized.
    #[serde(default)]
    pub filter: Interpolation,
    /// Widen the filter when reducing, as Pillow does always and `torch.nn.functional.interpolate` only on request.
    #[serde(default = "yes")]
    pub antialias: bool,
    /// Probability of exchanging left and right.
    #[serde(default)]
    pub flip: f64,
    /// Random colours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Jitter>,
    /// Probability of losing colour.
    #[serde(default)]
    pub grey: f64,
    /// Random softness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blur: Option<Blur>,
    /// Inverted highlights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub solarise: Option<Solarise>,
}

/// A filter that crops are resized with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Interpolation {
    /// Triangle.
    #[default]
    Bilinear,
    /// Cubic convolution.
    Bicubic,
}

/// `ColorJitter`: the four adjustments in random order. Pictures without colour have no saturation and no hue to adjust.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jitter {
    /// Of adjusting anything.
    pub probability: f64,
    /// Factors from `1 - brightness`, or 0, to `1 + brightness`; none if 0. The same for the next two.
    pub brightness: f64,
    /// Distance from the mean grey.
    pub contrast: f64,
    /// Distance from the same picture without colour.
    pub saturation: f64,
    /// Turns of the colour circle, from `-hue` to `hue`; at most 0.5.
    pub hue: f64,
}

/// `GaussianBlur`, reflected at the borders.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Blur {
    /// Of blurring.
    pub probability: f64,
    /// Side of the kernel, in pixels of the view; odd.
    pub kernel: usize,
    /// Least and greatest standard deviation, in pixels of the view.
    pub sigma: [f64; 2],
}

/// `RandomSolarize`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Solarise {
    /// Of inverting.
    pub probability: f64,
    /// The darkest sample that is inverted.
    pub threshold: u8,
}

fn torchvision_scale() -> [f64; 2] {
    [0.08, 1.0]
}

fn torchvision_aspect() -> [f64; 2] {
    [3.0 / 4.0, 4.0 / 3.0]
}

fn yes() -> bool {
    true
}

impl Augmentation {
    /// I-JEPA's released configurations: a crop, and nothing else.
    pub fn i_jepa(size: [usize; 2]) -> Self {
        Self {
            size,
            scale: [0.3, 1.0],
            aspect: torchvision_aspect(),
            filter: Interpolation::Bilinear,
            antialias: true,
            flip: 0.0,
            jitter: None,
            grey: 0.0,
            blur: None,
            solarise: None,
        }
    }

    /// The whole of a picture of the view's aspect ratio, else its middle: LeWorldModel changes no frame.
    pub fn whole(size: [usize; 2]) -> Self {
        let [height, width] = size;
        Self {
            scale: [1.0, 1.0],
            aspect: [width as f64 / height as f64; 2],
            ..Self::i_jepa(size)
        }
    }

    /// V-JEPA's released configurations; every frame of a clip takes the same view. They resize with torch's
    /// `interpolate`, without antialias.
    pub fn v_jepa(size: [usize; 2]) -> Self {
        Self {
            aspect: [0.75, 1.35],
            antialias: false,
            flip: 0.5,
            ..Self::i_jepa(size)
        }
    }

    /// The views of LeJEPA's single-file example, MINIMAL.md (four of them, 128 pixels). Its solarisation is twice
    /// random, 0.2 of the time and then half of those, hence 0.1.
    pub fn le_jepa_minimal(size: [usize; 2]) -> Self {
        Self {
            scale: torchvision_scale(),
            flip: 0.5,
            jitter: Some(Jitter {
                probability: 0.8,
                brightness: 0.8,
                contrast: 0.8,
                saturation: 0.8,
                hue: 0.2,
            }),
            grey: 0.2,
            blur: Some(Blur::fitting(7, size)),
            solarise: Some(Solarise {
                probability: 0.1,
                threshold: 128,
            }),
            ..Self::i_jepa(size)
        }
    }

    /// The global views of LeJEPA's paper (two of them, 224 pixels). The kernel is that of the authors' training script.
    pub fn le_jepa_global(size: [usize; 2]) -> Self {
        Self {
            scale: [0.3, 1.0],
            jitter: Some(Jitter {
                probability: 0.8,
                brightness: 0.4,
                contrast: 0.4,
                saturation: 0.2,
                hue: 0.1,
            }),
            blur: Some(Blur::fitting(23, size)),
            solarise: Some(Solarise {
                probability: 0.2,
                threshold: 128,
            }),
            ..Self::le_jepa_minimal(size)
        }
    }

    /// The local views of LeJEPA's paper (six of them, 98 pixels): smaller crops, all else as in the global ones.
    pub fn le_jepa_local(size: [usize; 2]) -> Self {
        Self {
            scale: [0.05, 0.3],
            ..Self::le_jepa_global(size)
        }
    }

    /// # Errors
    /// [`Error::BadConfig`] if a number is out of its range.
    pub fn check(&self) -> Result<()> {
        let [height, width] = self.size;
        if [height, width]
            .iter()
            .any(|side| !(1..=MAX_OUTPUT_SIDE).contains(side))
        {
            return Err(bad(format!(
                "size is {height} × {width}; each side must be from 1 to {MAX_OUTPUT_SIDE}"
            )));
        }
        check_range("scale", self.scale, MIN_SCALE, 1.0)?;
        check_range("aspect", self.aspect, MIN_ASPECT, 1.0 / MIN_ASPECT)?;
        check_probability("flip", self.flip)?;
        check_probability("grey", self.grey)?;
        if let Some(jitter) = self.jitter {
            check_probability("jitter.probability", jitter.probability)?;
            let strengths = [jitter.brightness, jitter.contrast, jitter.saturation];
            for (name, strength) in ["brightness", "contrast", "saturation"]
                .iter()
                .zip(strengths)
            {
                check_range(&format!("jitter.{name}"), [strength; 2], 0.0, MAX_STRENGTH)?;
            }
            check_range("jitter.hue", [jitter.hue; 2], 0.0, 0.5)?;
        }
        if let Some(blur) = self.blur {
            check_probability("blur.probability", blur.probability)?;
            check_range("blur.sigma", blur.sigma, MIN_SIGMA, MAX_SIGMA)?;
            let largest = largest_kernel(self.size);
            if blur.kernel % 2 == 0 || blur.kernel > largest {
                return Err(bad(format!(
                    "blur.kernel is {}; it must be odd and, for views of {height} × {width} pixels, at most {largest}",
                    blur.kernel
                )));
            }
        }
        if let Some(solarise) = self.solarise {
            check_probability("solarise.probability", solarise.probability)?;
        }
        Ok(())
    }
}

impl Blur {
    /// Half of the time, with the published range of softness, and a kernel no larger than a view of this size allows.
    fn fitting(kernel: usize, size: [usize; 2]) -> Self {
        Self {
            probability: 0.5,
            kernel: kernel.min(largest_kernel(size)),
            sigma: [0.1, 2.0],
        }
    }
}

/// Smallest accepted share of the area; a crop has a pixel at least anyway.
const MIN_SCALE: f64 = 1e-6;

/// Narrowest accepted crop: that of the longest side over one pixel.
const MIN_ASPECT: f64 = 1.0 / super::MAX_SIDE as f64;

/// Greatest accepted strength of a colour adjustment, far beyond any recipe.
const MAX_STRENGTH: f64 = 100.0;

/// Least accepted softness: less underflows in the square.
const MIN_SIGMA: f64 = 1e-3;

/// Greatest accepted softness: the longest side.
const MAX_SIGMA: f64 = super::MAX_SIDE as f64;

/// The largest kernel that reflects a border only once.
fn largest_kernel(size: [usize; 2]) -> usize {
    (2 * size[0].min(size[1])).saturating_sub(1)
}

fn check_probability(name: &str, probability: f64) -> Result<()> {
    check_range(name, [probability; 2], 0.0, 1.0)
}

fn check_range(name: &str, [low, high]: [f64; 2], least: f64, greatest: f64) -> Result<()> {
    // Written so that NaN fails.
    if least <= low && low <= high && high <= greatest {
        return Ok(());
    }
    let given = if low == high {
        format!("{low}")
    } else {
        format!("{low} to {high}")
    };
    Err(bad(format!(
        "{name} is {given}; it must rise and lie from {least} to {greatest}"
    )))
}

fn bad(why: impl Display) -> Error {
    Error::BadConfig(format!("The augmentation cannot be used: {why}."))
}

/// A part of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crop {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
}

/// Everything random about one view, drawn once: rendered from every frame of a clip, it changes them all alike.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    picture: [usize; 2],
    crop: Crop,
    flipped: bool,
    adjustments: Vec<Adjustment>,
    grey: bool,
    sigma: Option<f64>,
    solarised: bool,
}

/// Makes views: an [`Augmentation`], and the mean and standard deviation that the model wants.
#[derive(Debug, Clone)]
pub struct Augmenter {
    augmentation: Augmentation,
    /// The normalised value of each byte, a table a channel.
    normalised: Vec<[f32; 256]>,
}

impl Augmenter {
    /// `mean` and `std` are of values from 0 to 1, three of each for colour, one for grey.
    ///
    /// # Errors
    /// [`Error::BadConfig`] if a number is out of its range.
    pub fn new(augmentation: Augmentation, mean: &[f64], std: &[f64]) -> Result<Self> {
        augmentation.check()?;
        if !matches!(mean.len(), 1 | 3) || mean.len() != std.len() {
            return Err(bad(format!(
                "mean has {} values and std {}; both must have 3, or 1 for grey",
                mean.len(),
                std.len()
            )));
        }
        let table = |(&mean, &std): (&f64, &f64)| {
            std::array::from_fn(|byte| ((byte as f64 / 255.0 - mean) / std) as f32)
        };
        let normalised: Vec<[f32; 256]> = mean.iter().zip(std).map(table).collect();
        if std.iter().any(|&std| std <= 0.0)
            || normalised.iter().flatten().any(|value| !value.is_finite())
        {
            return Err(bad(
                "mean must be finite and std above 0, so that every value is finite",
            ));
        }
        Ok(Self {
            augmentation,
            normalised,
        })
    }

    /// What it was made of.
    pub fn augmentation(&self) -> &Augmentation {
        &self.augmentation
    }

    /// Channels of a view: 3, or 1 for grey.
    pub fn channels(&self) -> usize {
        self.normalised.len()
    }

    /// A random view of a picture of 8-bit samples, planar and normalised: `[channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the picture is empty, too large, contradictory or of floats.
    pub fn apply(&self, image: &ImageView, random: &mut impl Generator) -> Result<Vec<f32>> {
        let view = self.draw([image.height, image.width], random)?;
        self.render(image, &view)
    }

    /// Draws what is random about a view of a picture of `[height, width]`.
    pub fn draw(&self, picture: [usize; 2], random: &mut impl Generator) -> Result<View> {
        check_picture(picture)?;
        let description = &self.augmentation;
        let crop = crop(picture, description.scale, description.aspect, random);
        let flipped = happens(description.flip, random);
        let adjustments = match description.jitter {
            Some(jitter) if happens(jitter.probability, random) => jitter.draw(random),
            _ => Vec::new(),
        };
        let grey = happens(description.grey, random);
        let sigma = match description.blur {
            Some(blur) if happens(blur.probability, random) => Some(between(blur.sigma, random)),
            _ => None,
        };
        let solarised = match description.solarise {
            Some(solarise) => happens(solarise.probability, random),
            None => false,
        };
        Ok(View {
            picture,
            crop,
            flipped,
            adjustments,
            grey,
            sigma,
            solarised,
        })
    }

    /// The view of this picture, planar and normalised: `[channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::BadInput`] if the view was drawn for pictures of another size, or the picture cannot be used.
    pub fn render(&self, image: &ImageView, view: &View) -> Result<Vec<f32>> {
        let (samples, channels) = self.samples(image, view)?;
        let mut planes = reserved(samples.len() / channels * self.channels())?;
        for (channel, table) in self.normalised.iter().enumerate() {
            let samples = samples[channel.min(channels - 1)..]
                .iter()
                .step_by(channels);
            planes.extend(samples.map(|&byte| table[usize::from(byte)]));
        }
        Ok(planes)
    }

    /// The bytes of a view, interleaved, and their channels: 1 where neither picture nor model has colour.
    fn samples(&self, image: &ImageView, view: &View) -> Result<(Vec<u8>, usize)> {
        image.validate()?;
        let Pixels::U8(samples) = image.pixels else {
            return Err(Error::BadInput(
                "Augmentations need pictures of 8-bit samples; give bytes from 0 to 255.".into(),
            ));
        };
        if view.picture != [image.height, image.width] {
            return Err(Error::BadInput(format!(
                "The picture has {} × {} pixels, but the view was drawn for {} × {}.",
                image.width, image.height, view.picture[1], view.picture[0]
            )));
        }
        let colour = image.channels >= 3 && self.channels() == 3;
        let channels = if colour { 3 } else { 1 };
        let cropped = cropped(samples, image, view.crop, channels)?;
        let mut samples = self.resized(&cropped, view.crop, channels)?;
        if view.flipped {
            flip(&mut samples, self.augmentation.size[1], channels);
        }
        for &adjustment in &view.adjustments {
            adjust(&mut samples, channels, adjustment);
        }
        if view.grey && colour {
            blend(&mut samples, 0.0, |pixel| [grey_u8(pixel); 3]);
        }
        if let (Some(sigma), Some(blur)) = (view.sigma, self.augmentation.blur) {
            blur_rows_and_columns(
                &mut samples,
                self.augmentation.size,
                channels,
                &gaussian(blur.kernel, sigma),
            )?;
        }
        if let (true, Some(solarise)) = (view.solarised, self.augmentation.solarise) {
            for sample in samples.iter_mut().filter(|s| **s >= solarise.threshold) {
                *sample = 255 - *sample;
            }
        }
        Ok((samples, channels))
    }

    fn resized(&self, cropped: &[u8], crop: Crop, channels: usize) -> Result<Vec<u8>> {
        let geometry = Geometry::whole([crop.height, crop.width], channels, self.augmentation.size);
        let filter = match self.augmentation.filter {
            Interpolation::Bilinear => Filter::Bilinear,
            Interpolation::Bicubic => Filter::Bicubic,
        };
        if self.augmentation.antialias {
            return resize_u8(cropped, &geometry, Library::Pillow(filter));
        }
        let sampling = Sampling {
            filter,
            antialias: false,
        };
        let mut floats = reserved(cropped.len())?;
        floats.extend(cropped.iter().copied().map(f32::from));
        let resized = resize_f32(&floats, &geometry, sampling)?;
        let mut bytes = reserved(resized.len())?;
        // A cast saturates, which clamps what bicubic overshoots.
        bytes.extend(resized.iter().map(|value| value.round_ties_even() as u8));
        Ok(bytes)
    }
}

impl Jitter {
    /// The adjustments of one picture, in random order; those of strength 0 are left out.
    fn draw(&self, random: &mut impl Generator) -> Vec<Adjustment> {
        let order = random.permutation(4);
        let mut factor = |strength: f64| {
            let range = [(1.0 - strength).max(0.0), 1.0 + strength];
            (strength > 0.0).then(|| between(range, random))
        };
        let factors = [self.brightness, self.contrast, self.saturation].map(&mut factor);
        let turns = (self.hue > 0.0).then(|| between([-self.hue, self.hue], random));
        let adjustments = [
            factors[0].map(Adjustment::Brightness),
            factors[1].map(Adjustment::Contrast),
            factors[2].map(Adjustment::Saturation),
            turns.map(Adjustment::Hue),
        ];
        order.iter().filter_map(|&at| adjustments[at]).collect()
    }
}

fn happens(probability: f64, random: &mut impl Generator) -> bool {
    f64::from(random.uniform()) < probability
}

fn between([low, high]: [f64; 2], random: &mut impl Generator) -> f64 {
    low + (high - low) * f64::from(random.uniform())
}

/// `RandomResizedCrop.get_params`: after the last try the largest part of the centre whose aspect is allowed.
fn crop(
    [height, width]: [usize; 2],
    scale: [f64; 2],
    aspect: [f64; 2],
    random: &mut impl Generator,
) -> Crop {
    let area = (height * width) as f64;
    for _ in 0..CROP_TRIES {
        let target = area * between(scale, random);
        // Not std, whose exponentials differ by platform, so that a seed makes the same crops everywhere.
        let ratio = libm::exp(between(aspect.map(libm::log), random));
        let w = (target * ratio).sqrt().round_ties_even() as usize;
        let h = (target / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            return Crop {
                top: random.below(height - h + 1),
                left: random.below(width - w + 1),
                height: h,
                width: w,
            };
        }
    }
    let [narrowest, widest] = aspect;
    let whole = width as f64 / height as f64;
    // Extreme aspects round to nothing, hence a pixel at least.
    let side = |length: f64| (length.round_ties_even() as usize).max(1);
    let [h, w] = if whole < narrowest {
        [side(width as f64 / narrowest).min(height), width]
    } else if whole > widest {
        [height, side(height as f64 * widest).min(width)]
    } else {
        [height, width]
    };
    Crop {
        top: (height - h) / 2,
        left: (width - w) / 2,
        height: h,
        width: w,
    }
}

/// The crop alone, since resizing must not see what is beyond it; alpha is dropped, and colour that nobody wants.
fn cropped(samples: &[u8], image: &ImageView, crop: Crop, kept: usize) -> Result<Vec<u8>> {
    let channels = image.channels;
    let mut part = reserved(crop.height * crop.width * kept)?;
    let rows = samples.chunks_exact(image.width * channels);
    for row in rows.skip(crop.top).take(crop.height) {
        let row = &row[crop.left * channels..(crop.left + crop.width) * channels];
        let pixels = row.chunks_exact(channels);
        match (channels, kept) {
            (3 | 4, 1) => part.extend(pixels.map(grey_u8)),
            _ if channels == kept => part.extend_from_slice(row),
            _ => part.extend(pixels.flat_map(|pixel| &pixel[..kept])),
        }
    }
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn random(seed: u64) -> Stream {
        Stream::new(seed, "views", 0)
    }

    fn picture(samples: usize, seed: u64) -> Vec<u8> {
        let mut random = random(seed);
        (0..samples).map(|_| random.word() as u8).collect()
    }

    /// Values are bytes again, so that tests can count in them.
    fn in_bytes(augmentation: Augmentation, channels: usize) -> Augmenter {
        Augmenter::new(
            augmentation,
            &vec![0.0; channels],
            &vec![1.0 / 255.0; channels],
        )
        .unwrap()
    }

    /// Everything happens, always.
    fn certain(size: [usize; 2]) -> Augmentation {
        let mut all = Augmentation::le_jepa_global(size);
        all.flip = 1.0;
        all.grey = 1.0;
        all.jitter.as_mut().unwrap().probability = 1.0;
        all.blur.as_mut().unwrap().probability = 1.0;
        all.solarise.as_mut().unwrap().probability = 1.0;
        all
    }

    fn whole(picture: [usize; 2]) -> View {
        View {
            picture,
            crop: Crop {
                top: 0,
                left: 0,
                height: picture[0],
                width: picture[1],
            },
            flipped: false,
            adjustments: Vec::new(),
            grey: false,
            sigma: None,
            solarised: false,
        }
    }

    fn planar(interleaved: &[u8], channels: usize) -> Vec<f32> {
        (0..channels)
            .flat_map(|c| interleaved[c..].iter().step_by(channels))
            .map(|&byte| f32::from(byte))
            .collect()
    }

    #[test]
    fn a_whole_picture_of_the_same_size_stays_as_it_is() {
        let samples = picture(7 * 5 * 4, 1);
        let rgb: Vec<u8> = samples
            .chunks_exact(4)
            .flat_map(|p| p[..3].to_vec())
            .collect();
        for augmentation in [Augmentation::i_jepa([7, 5]), Augmentation::v_jepa([7, 5])] {
            let image = ImageView::from_u8(&samples, 5, 7, 4);
            let view = in_bytes(augmentation, 3)
                .render(&image, &whole([7, 5]))
                .unwrap();
            assert_eq!(view, planar(&rgb, 3));
        }
    }

    #[test]
    fn values_are_normalised_by_channel() {
        let augmenter = Augmenter::new(
            Augmentation::i_jepa([1, 1]),
            &[0.5, 0.25, 0.0],
            &[0.5, 0.25, 2.0],
        )
        .unwrap();
        let image = ImageView::from_u8(&[255, 0, 255], 1, 1, 3);
        assert_eq!(
            augmenter.render(&image, &whole([1, 1])).unwrap(),
            [1.0, -1.0, 0.5]
        );
    }

    #[test]
    fn a_crop_is_resized_without_seeing_what_is_around_it() {
        // White around a black square of 4 × 4; enlarged by a filter that saw the border, its rim would be grey.
        let mut samples = vec![255; 8 * 8];
        for y in 2..6 {
            samples[y * 8 + 2..y * 8 + 6].fill(0);
        }
        let mut view = whole([8, 8]);
        view.crop = Crop {
            top: 2,
            left: 2,
            height: 4,
            width: 4,
        };
        let image = ImageView::from_u8(&samples, 8, 8, 1);
        let pixels = in_bytes(Augmentation::i_jepa([16, 16]), 1)
            .render(&image, &view)
            .unwrap();
        assert_eq!(pixels, [0.0; 256]);
    }

    #[test]
    fn grey_pictures_and_grey_models_meet() {
        let grey = picture(6 * 6, 2);
        let image = ImageView::from_u8(&grey, 6, 6, 1);
        let plane = planar(&grey, 1);
        let pixels = in_bytes(Augmentation::i_jepa([6, 6]), 3)
            .render(&image, &whole([6, 6]))
            .unwrap();
        assert_eq!(pixels, [plane.as_slice(); 3].concat());
        // Pillow: (19595 r + 38470 g + 7471 b + 32768) >> 16.
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]];
        let samples = colours.concat();
        let image = ImageView::from_u8(&samples, 4, 1, 3);
        let augmenter = in_bytes(Augmentation::i_jepa([1, 4]), 1);
        let expected = [76.0, 150.0, 29.0, 18.0];
        assert_eq!(augmenter.render(&image, &whole([1, 4])).unwrap(), expected);
        let mut view = whole([1, 4]);
        view.grey = true;
        let pixels = in_bytes(Augmentation::i_jepa([1, 4]), 3)
            .render(&image, &view)
            .unwrap();
        assert_eq!(pixels, [expected; 3].concat());
    }

    #[test]
    fn a_colour_picture_of_equal_channels_is_treated_as_a_grey_one() {
        let grey = picture(20 * 24, 3);
        let colour: Vec<u8> = grey.iter().flat_map(|&byte| [byte; 3]).collect();
        let augmenter = in_bytes(certain([16, 16]), 3);
        for seed in 0..20 {
            let of_grey = augmenter
                .apply(&ImageView::from_u8(&grey, 24, 20, 1), &mut random(seed))
                .unwrap();
            let of_colour = augmenter
                .apply(&ImageView::from_u8(&colour, 24, 20, 3), &mut random(seed))
                .unwrap();
            assert_eq!(of_grey, of_colour, "seed {seed}");
        }
    }

    #[test]
    fn crops_have_the_drawn_area_and_aspect_and_lie_anywhere() {
        let mut random = random(5);
        let picture = [180, 240];
        let draws = 20_000;
        let (mut area, mut log_aspect, mut centre) = (0.0, 0.0, [0.0; 2]);
        for _ in 0..draws {
            let crop = crop(picture, [0.1, 0.4], [0.75, 4.0 / 3.0], &mut random);
            let share = (crop.height * crop.width) as f64 / (180.0 * 240.0);
            let aspect = crop.width as f64 / crop.height as f64;
            // Half a pixel of rounding on each side.
            assert!((0.098..0.405).contains(&share), "{share}");
            assert!((0.74..1.35).contains(&aspect), "{aspect}");
            assert!(crop.top + crop.height <= 180 && crop.left + crop.width <= 240);
            area += share;
            log_aspect += aspect.ln();
            centre[0] += (crop.top as f64 + crop.height as f64 / 2.0) / 180.0;
            centre[1] += (crop.left as f64 + crop.width as f64 / 2.0) / 240.0;
        }
        let n = f64::from(draws);
        // At these sizes every draw fits at once, so the means are those of the uniform distributions; the bounds are
        // more than four standard errors.
        assert!((area / n - 0.25).abs() < 0.003);
        assert!((log_aspect / n).abs() < 0.006);
        assert!((centre[0] / n - 0.5).abs() < 0.006 && (centre[1] / n - 0.5).abs() < 0.006);
    }

    #[test]
    fn a_picture_too_narrow_for_any_crop_is_cut_in_the_centre() {
        let mut random = random(6);
        let aspect = [0.75, 4.0 / 3.0];
        let tall = crop([100, 30], [1.0, 1.0], aspect, &mut random);
        let expected = Crop {
            top: 30,
            left: 0,
            height: 40,
            width: 30,
        };
        assert_eq!(tall, expected);
        let wide = crop([30, 101], [1.0, 1.0], aspect, &mut random);
        let expected = Crop {
            top: 0,
            left: 30,
            height: 30,
            width: 40,
        };
        assert_eq!(wide, expected);
        let thin = crop([1, 16384], [1.0, 1.0], [0.01, 0.02], &mut random);
        assert_eq!((thin.height, thin.width), (1, 1));
    }

    #[test]
    fn the_order_of_adjustments_is_random_and_strengths_of_zero_are_left_out() {
        let jitter = Jitter {
            probability: 1.0,
            brightness: 0.4,
            contrast: 1.5,
            saturation: 0.2,
            hue: 0.1,
        };
        let mut random = random(7);
        let mut first = [0; 4];
        for _ in 0..4000 {
            let adjustments = jitter.draw(&mut random);
            assert_eq!(adjustments.len(), 4);
            for adjustment in &adjustments {
                let (value, range) = match *adjustment {
                    Adjustment::Brightness(factor) => (factor, 0.6..1.4),
                    Adjustment::Contrast(factor) => (factor, 0.0..2.5),
                    Adjustment::Saturation(factor) => (factor, 0.8..1.2),
                    Adjustment::Hue(turns) => (turns, -0.1..0.1),
                };
                assert!(range.contains(&value), "{adjustment:?}");
            }
            first[match adjustments[0] {
                Adjustment::Brightness(_) => 0,
                Adjustment::Contrast(_) => 1,
                Adjustment::Saturation(_) => 2,
                Adjustment::Hue(_) => 3,
            }] += 1;
        }
        // 1000 each, with a standard deviation of 27.
        assert!(
            first.iter().all(|count| (880..1120).contains(count)),
            "{first:?}"
        );
        let only_hue = Jitter {
            brightness: 0.0,
            contrast: 0.0,
            saturation: 0.0,
            ..jitter
        };
        assert!(matches!(
            only_hue.draw(&mut random)[..],
            [Adjustment::Hue(_)]
        ));
    }

    #[test]
    fn solarisation_inverts_from_the_threshold_on() {
        let mut augmentation = Augmentation::i_jepa([1, 4]);
        augmentation.solarise = Some(Solarise {
            probability: 1.0,
            threshold: 128,
        });
        let mut view = whole([1, 4]);
        view.solarised = true;
        let image = ImageView::from_u8(&[0, 127, 128, 255], 4, 1, 1);
        let pixels = in_bytes(augmentation, 1).render(&image, &view).unwrap();
        assert_eq!(pixels, [0.0, 127.0, 127.0, 0.0]);
    }

    #[test]
    fn the_same_seed_makes_the_same_view() {
        let samples = picture(40 * 30 * 3, 8);
        let image = ImageView::from_u8(&samples, 30, 40, 3);
        let augmenter = in_bytes(Augmentation::le_jepa_minimal([24, 24]), 3);
        let view = |seed| augmenter.apply(&image, &mut random(seed)).unwrap();
        assert_eq!(view(1).len(), 3 * 24 * 24);
        for seed in 0..10 {
            assert_eq!(view(seed), view(seed));
            assert_ne!(view(seed), view(seed + 10));
        }
    }

    #[test]
    fn what_is_drawn_happens_as_often_as_described() {
        let augmenter = in_bytes(Augmentation::le_jepa_minimal([32, 32]), 3);
        let mut random = random(9);
        let mut counts = [0; 5];
        for _ in 0..10_000 {
            let view = augmenter.draw([50, 60], &mut random).unwrap();
            let happened = [
                view.flipped,
                !view.adjustments.is_empty(),
                view.grey,
                view.sigma.is_some(),
                view.solarised,
            ];
            counts
                .iter_mut()
                .zip(happened)
                .for_each(|(n, yes)| *n += i32::from(yes));
            assert!(view.sigma.is_none_or(|sigma| (0.1..2.0).contains(&sigma)));
        }
        // Standard deviations are 50 at most.
        for (count, expected) in counts.iter().zip([5000, 8000, 2000, 5000, 1000]) {
            assert!((count - expected).abs() < 250, "{counts:?}");
        }
    }

    #[test]
    fn presets_hold_the_published_numbers_and_are_sound_at_any_size() {
        for size in [[1, 1], [28, 28], [98, 98], [224, 160]] {
            for preset in [
                Augmentation::i_jepa(size),
                Augmentation::v_jepa(size),
                Augmentation::le_jepa_minimal(size),
                Augmentation::le_jepa_global(size),
                Augmentation::le_jepa_local(size),
            ] {
                preset.check().unwrap();
                let text = serde_json::to_string(&preset).unwrap();
                assert_eq!(serde_json::from_str::<Augmentation>(&text).unwrap(), preset);
            }
        }
        let short: Augmentation =
            serde_json::from_str(r#"{"size": [32, 32], "scale": [0.3, 1.0]}"#).unwrap();
        assert_eq!(short, Augmentation::i_jepa([32, 32]));
        assert!(serde_json::from_str::<Augmentation>(r#"{"size": [32, 32], "flp": 1}"#).is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        let refusal = |change: fn(&mut Augmentation)| {
            let mut augmentation = Augmentation::le_jepa_global([32, 32]);
            change(&mut augmentation);
            let error = augmentation.check().unwrap_err();
            assert_eq!(error.code(), "bad-config");
            error.to_string()
        };
        assert!(refusal(|a| a.size = [0, 32]).contains("size"));
        assert!(refusal(|a| a.scale = [0.0, 1.0]).contains("scale"));
        assert!(refusal(|a| a.scale = [0.5, 0.4]).contains("scale"));
        assert!(refusal(|a| a.scale = [0.5, 1.1]).contains("scale"));
        assert!(refusal(|a| a.aspect = [f64::NAN, 1.0]).contains("aspect"));
        assert!(refusal(|a| a.flip = 1.5).contains("flip"));
        assert!(refusal(|a| a.grey = -0.1).contains("grey"));
        assert!(refusal(|a| a.jitter.as_mut().unwrap().hue = 0.6).contains("hue"));
        assert!(refusal(|a| a.jitter.as_mut().unwrap().contrast = -1.0).contains("contrast"));
        assert!(refusal(|a| a.blur.as_mut().unwrap().kernel = 8).contains("kernel"));
        assert!(refusal(|a| a.blur.as_mut().unwrap().kernel = 65).contains("kernel"));
        assert!(refusal(|a| a.blur.as_mut().unwrap().sigma = [0.0, 1.0]).contains("sigma"));
        let refused = |mean: &[f64], std: &[f64]| {
            Augmenter::new(Augmentation::i_jepa([8, 8]), mean, std).unwrap_err()
        };
        assert_eq!(refused(&[0.0; 2], &[1.0; 2]).code(), "bad-config");
        assert_eq!(refused(&[0.0; 3], &[1.0]).code(), "bad-config");
        assert_eq!(refused(&[0.0], &[0.0]).code(), "bad-config");
        assert_eq!(refused(&[f64::NAN], &[1.0]).code(), "bad-config");
    }

    #[test]
    fn pictures_that_do_not_fit_are_refused() {
        let augmenter = in_bytes(Augmentation::i_jepa([8, 8]), 3);
        let floats = [0.0; 12];
        let float = ImageView::from_f32(&floats, 2, 2, 3);
        assert_eq!(
            augmenter.apply(&float, &mut random(1)).unwrap_err().code(),
            "bad-input"
        );
        let empty = ImageView::from_u8(&[], 0, 0, 3);
        assert_eq!(
            augmenter.apply(&empty, &mut random(1)).unwrap_err().code(),
            "bad-input"
        );
        let view = augmenter.draw([3, 2], &mut random(1)).unwrap();
        let other = ImageView::from_u8(&[0; 12], 2, 2, 3);
        assert_eq!(
            augmenter.render(&other, &view).unwrap_err().code(),
            "bad-input"
        );
    }
}
