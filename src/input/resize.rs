//! Separable resampling, with the arithmetic of the libraries that published models were fed by.
//!
//! All of them describe an output sample as a weighted mean of input samples around the same place, axis by axis, the
//! width first. They differ in three ways only, and each has one place here: how far the filter reaches and what becomes
//! of weights beyond the border (`Sampling::weigh`), and in which numbers weights are held and sums are rounded
//! (`Arithmetic`).

use std::borrow::Cow;
use std::ops::Range;

use crate::{Error, Result};

/// Reconstruction filters, in the order of Pillow's `resample` codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// The one input sample whose cell holds the output's centre (torch calls it `nearest-exact`). Where a centre falls on
    /// the border of two cells, libraries differ by their rounding.
    Nearest,
    /// Windowed sinc of three lobes.
    Lanczos,
    /// Triangle.
    Bilinear,
    /// Keys' cubic convolution.
    Bicubic,
    /// Plain mean over the output's cell.
    Box,
    /// Windowed sinc of one lobe.
    Hamming,
}

impl Filter {
    /// Every filter, at the index that is its Pillow code.
    pub const ALL: [Self; 6] = [
        Self::Nearest,
        Self::Lanczos,
        Self::Bilinear,
        Self::Bicubic,
        Self::Box,
        Self::Hamming,
    ];

    /// The lower-case name that processor files and Pillow use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nearest => "nearest",
            Self::Lanczos => "lanczos",
            Self::Bilinear => "bilinear",
            Self::Bicubic => "bicubic",
            Self::Box => "box",
            Self::Hamming => "hamming",
        }
    }

    /// Distance from the centre beyond which the filter is zero, in samples.
    fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }
}

/// A filter, and whether it widens with the reduction factor so that no input sample is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// The filter.
    pub filter: Filter,
    /// Widen the filter when reducing. Without effect on [`Filter::Nearest`].
    pub antialias: bool,
}

impl Sampling {
    /// The filter at distance `x`.
    fn at(self, x: f64) -> f64 {
        use std::f64::consts::PI;
        let sinc = |x: f64| {
            if x == 0.0 {
                1.0
            } else {
                (x * PI).sin() / (x * PI)
            }
        };
        let distance = x.abs();
        match self.filter {
            // Half open, so that a sample between two cells belongs to one of them.
            Filter::Nearest | Filter::Box => f64::from(-0.5 < x && x <= 0.5),
            Filter::Bilinear => (1.0 - distance).max(0.0),
            Filter::Hamming if distance < 1.0 => sinc(x) * (0.54 + 0.46 * (x * PI).cos()),
            Filter::Lanczos if distance < 3.0 => sinc(x) * sinc(x / 3.0),
            Filter::Bicubic if distance < 2.0 => {
                // torch and OpenCV interpolate with one slope, everyone reduces with the other.
                let a = if self.antialias { -0.5 } else { -0.75 };
                if distance < 1.0 {
                    ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0
                } else {
                    (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a
                }
            }
            Filter::Hamming | Filter::Lanczos | Filter::Bicubic => 0.0,
        }
    }

    /// First input sample and weights of output sample `index`, when `input` samples become `output`.
    fn weigh(self, input: usize, output: usize, index: usize, weights: &mut Vec<f64>) -> usize {
        let scale = input as f64 / output as f64;
        let center = scale * (index as f64 + 0.5);
        weights.clear();
        if self.filter == Filter::Nearest {
            // Not as a narrow box, lest rounding put a second sample at the very edge of the cell.
            weights.push(1.0);
            return (center as usize).min(input - 1);
        }
        let widening = if self.antialias { scale.max(1.0) } else { 1.0 };
        let narrowing = 1.0 / widening;
        let reach = self.filter.support() * widening;
        let low = (center - reach + 0.5).floor() as i64;
        let high = (center + reach + 0.5).floor() as i64;
        let last = input as i64 - 1;
        let start = low.clamp(0, last);

        for j in low..high {
            let inside = j.clamp(0, last);
            // Filters that widen stop at the border; the others see the border sample repeated beyond it.
            if self.antialias && inside != j {
                continue;
            }
            let weight = self.at((j as f64 - center + 0.5) * narrowing);
            match weights.get_mut((inside - start) as usize) {
                Some(folded) => *folded += weight,
                None => weights.push(weight),
            }
        }
        let total: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|weight| *weight /= total);
        while weights.len() > 1 && weights.last() == Some(&0.0) {
            weights.pop();
        }
        start as usize
    }
}

/// What each output sample of one axis is made of.
struct Axis<W> {
    taps: Vec<Tap>,
    weights: Vec<W>,
}

struct Tap {
    start: usize,
    weights: Range<usize>,
}

impl Axis<f64> {
    /// The outputs `window` of `input` samples resampled to `output`.
    fn new(sampling: Sampling, input: usize, output: usize, window: Range<usize>) -> Result<Self> {
        let mut axis = Self {
            taps: reserved(window.len())?,
            weights: Vec::new(),
        };
        let mut weights = Vec::new();
        for index in window {
            let start = sampling.weigh(input, output, index, &mut weights);
            axis.weights
                .try_reserve(weights.len())
                .map_err(out_of_memory)?;
            let first = axis.weights.len();
            axis.weights.extend_from_slice(&weights);
            axis.taps.push(Tap {
                start,
                weights: first..axis.weights.len(),
            });
        }
        Ok(axis)
    }

    fn quantize<W>(self, weight: impl Fn(f64) -> W) -> Result<Axis<W>> {
        let mut weights = reserved(self.weights.len())?;
        weights.extend(self.weights.into_iter().map(weight));
        Ok(Axis {
            taps: self.taps,
            weights,
        })
    }
}

impl<W> Axis<W> {
    /// The input samples that any output needs.
    fn span(&self) -> Range<usize> {
        let start = self.taps.iter().map(|tap| tap.start).min().unwrap_or(0);
        let end = self
            .taps
            .iter()
            .map(|tap| tap.start + tap.weights.len())
            .max()
            .unwrap_or(0);
        start..end
    }

    /// The same axis over an input that lacks its first `count` samples.
    fn without_first(mut self, count: usize) -> Self {
        self.taps.iter_mut().for_each(|tap| tap.start -= count);
        self
    }
}

/// The numbers in which a pass holds its weights, adds them up and leaves its results.
trait Arithmetic {
    type In: Copy;
    type Weight: Copy;
    type Sum: Copy;
    type Out: Copy + Default;

    fn zero(&self) -> Self::Sum;
    fn add(sum: Self::Sum, weight: Self::Weight, sample: Self::In) -> Self::Sum;
    fn finish(&self, sum: Self::Sum) -> Self::Out;
}

/// Floats throughout, as torch resizes float tensors.
struct Float;

impl Arithmetic for Float {
    type In = f32;
    type Weight = f32;
    type Sum = f32;
    type Out = f32;

    fn zero(&self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn add(sum: f32, weight: f32, sample: f32) -> f32 {
        sum + weight * sample
    }

    fn finish(&self, sum: f32) -> f32 {
        sum
    }
}

/// Bytes in and out, weights with `bits` binary places: Pillow, and torch on byte tensors.
struct Fixed {
    bits: u32,
}

impl Fixed {
    fn weight(&self, weight: f64) -> i32 {
        (weight * f64::from(1 << self.bits)).round() as i32
    }
}

impl Arithmetic for Fixed {
    type In = u8;
    type Weight = i32;
    type Sum = i32;
    type Out = u8;

    fn zero(&self) -> i32 {
        1 << (self.bits - 1)
    }

    #[inline(always)]
    fn add(sum: i32, weight: i32, sample: u8) -> i32 {
        sum + weight * i32::from(sample)
    }

    fn finish(&self, sum: i32) -> u8 {
        (sum >> self.bits).clamp(0, 255) as u8
    }
}

/// Binary places of OpenCV's weights.
const OPENCV_BITS: u32 = 11;

/// OpenCV's pass along the width: nothing is rounded to bytes yet.
struct OpenCvColumns;

impl Arithmetic for OpenCvColumns {
    type In = u8;
    type Weight = i32;
    type Sum = i32;
    type Out = i32;

    fn zero(&self) -> i32 {
        0
    }

    #[inline(always)]
    fn add(sum: i32, weight: i32, sample: u8) -> i32 {
        sum + weight * i32::from(sample)
    }

    fn finish(&self, sum: i32) -> i32 {
        sum >> 4
    }
}

/// OpenCV's pass along the height, with its three truncations.
struct OpenCvRows;

impl Arithmetic for OpenCvRows {
    type In = i32;
    type Weight = i32;
    type Sum = i32;
    type Out = u8;

    fn zero(&self) -> i32 {
        2
    }

    #[inline(always)]
    fn add(sum: i32, weight: i32, sample: i32) -> i32 {
        sum + ((weight * sample) >> 16)
    }

    fn finish(&self, sum: i32) -> u8 {
        (sum >> 2).clamp(0, 255) as u8
    }
}

/// A row-major array seen as `[outer, length, step]`, of which the first `inner` of every `step` are wanted.
#[derive(Clone, Copy)]
struct Lines {
    outer: usize,
    length: usize,
    step: usize,
    inner: usize,
}

/// Resamples the middle axis: `[outer, length, step]` becomes `[outer, axis, inner]`.
fn pass<A: Arithmetic>(
    arithmetic: &A,
    src: &[A::In],
    lines: Lines,
    axis: &Axis<A::Weight>,
) -> Result<Vec<A::Out>> {
    let Lines {
        outer,
        length,
        step,
        inner,
    } = lines;
    let line = axis.taps.len() * inner;
    let total = outer.checked_mul(line).ok_or_else(|| out_of_memory(()))?;
    let mut dst = reserved(total)?;
    dst.resize(total, A::Out::default());
    if total == 0 {
        return Ok(dst);
    }
    for (src, dst) in src
        .chunks_exact(length * step)
        .zip(dst.chunks_exact_mut(line))
    {
        for (tap, dst) in axis.taps.iter().zip(dst.chunks_exact_mut(inner)) {
            let weights = &axis.weights[tap.weights.clone()];
            let src = &src[tap.start * step..(tap.start + weights.len()) * step];
            // Rows of a picture in strips that vectorise; the channels of a pixel in one go.
            let mut at = 0;
            while at < inner {
                at += match inner - at {
                    16.. => mean::<A, 16>(arithmetic, src, step, at, weights, dst),
                    4.. => mean::<A, 4>(arithmetic, src, step, at, weights, dst),
                    3 => mean::<A, 3>(arithmetic, src, step, at, weights, dst),
                    _ => mean::<A, 1>(arithmetic, src, step, at, weights, dst),
                };
            }
        }
    }
    Ok(dst)
}

/// `N` neighbouring weighted means, from column `at`; returns `N`.
#[inline(always)]
fn mean<A: Arithmetic, const N: usize>(
    arithmetic: &A,
    src: &[A::In],
    step: usize,
    at: usize,
    weights: &[A::Weight],
    dst: &mut [A::Out],
) -> usize {
    let mut sums = [arithmetic.zero(); N];
    for (samples, &weight) in src.chunks_exact(step).zip(weights) {
        for (sum, &sample) in sums.iter_mut().zip(&samples[at..at + N]) {
            *sum = A::add(*sum, weight, sample);
        }
    }
    for (out, sum) in dst[at..at + N].iter_mut().zip(sums) {
        *out = arithmetic.finish(sum);
    }
    N
}

/// Whose arithmetic to resize bytes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// `PIL.Image.resize`: weights of 22 binary places, rounded to bytes after each pass. Equal to Pillow 11; Pillow 13
    /// takes the height first where that is cheaper, which changes some bytes.
    Pillow(Filter),
    /// `torchvision.transforms.functional.resize` of byte tensors with antialias: as Pillow, but with 16-bit weights.
    /// Filters that torchvision lacks are taken from Pillow.
    Torchvision(Filter),
    /// `cv2.resize` with `INTER_LINEAR`: no antialias, and rounded to bytes once, at the end. Within one level of OpenCV,
    /// which computes coordinates in single precision.
    OpenCv,
}

/// A picture, the size that it is resized to, and the part of the result that is wanted. Pairs are `[height, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the input.
    pub input: [usize; 2],
    /// Samples of an input pixel, side by side.
    pub channels: usize,
    /// How many of them, from the first, are wanted.
    pub kept: usize,
    /// Size of the whole resized picture.
    pub resized: [usize; 2],
    /// Rows and columns of it that are computed.
    pub window: [Range<usize>; 2],
}

impl Geometry {
    /// The whole picture, all channels.
    pub fn whole(input: [usize; 2], channels: usize, resized: [usize; 2]) -> Self {
        Self {
            input,
            channels,
            kept: channels,
            resized,
            window: resized.map(|side| 0..side),
        }
    }

    fn check(&self, samples: usize) -> Result<()> {
        let Self {
            input,
            channels,
            kept,
            resized,
            window,
        } = self;
        let sound = input.iter().chain(resized).all(|&side| side > 0)
            && (1..=*channels).contains(kept)
            && window
                .iter()
                .zip(resized)
                .all(|(window, &side)| !window.is_empty() && window.end <= side)
            && input[0]
                .checked_mul(input[1])
                .and_then(|n| n.checked_mul(*channels))
                == Some(samples);
        if sound {
            Ok(())
        } else {
            Err(Error::BadInput(format!(
                "{samples} samples cannot be resized as {self:?}."
            )))
        }
    }

    fn axis(&self, axis: usize, sampling: Sampling) -> Result<Axis<f64>> {
        Axis::new(
            sampling,
            self.input[axis],
            self.resized[axis],
            self.window[axis].clone(),
        )
    }

    /// Both passes; of the input only the rows that the window needs are read.
    fn run<W: Arithmetic, H: Arithmetic<In = W::Out>>(
        &self,
        src: &[W::In],
        (across, columns): (W, Axis<W::Weight>),
        (down, rows): (H, Axis<H::Weight>),
    ) -> Result<Vec<H::Out>> {
        let [_, width] = self.input;
        let needed = rows.span();
        let src = &src[needed.start * width * self.channels..needed.end * width * self.channels];
        let lines = Lines {
            outer: needed.len(),
            length: width,
            step: self.channels,
            inner: self.kept,
        };
        let narrow = pass(&across, src, lines, &columns)?;
        let row = self.window[1].len() * self.kept;
        let lines = Lines {
            outer: 1,
            length: needed.len(),
            step: row,
            inner: row,
        };
        pass(&down, &narrow, lines, &rows.without_first(needed.start))
    }
}

/// Resizes an interleaved byte picture: `[window, window, kept]` of the resized `[height, width, channels]`.
pub fn resize_u8(src: &[u8], geometry: &Geometry, library: Library) -> Result<Vec<u8>> {
    geometry.check(src.len())?;
    let rounded_between = |filter, bits: &dyn Fn(f64) -> u32| {
        let sampling = Sampling {
            filter,
            antialias: true,
        };
        let axis = |i: usize| {
            let largest = peak(sampling, geometry.input[i], geometry.resized[i]);
            let fixed = Fixed {
                bits: bits(largest),
            };
            let axis = geometry
                .axis(i, sampling)?
                .quantize(|weight| fixed.weight(weight))?;
            Ok((fixed, axis))
        };
        geometry.run(src, axis(1)?, axis(0)?)
    };
    match library {
        Library::Pillow(filter) => rounded_between(filter, &|_| PILLOW_BITS),
        Library::Torchvision(filter) => rounded_between(filter, &bits_of_16),
        Library::OpenCv => {
            let sampling = Sampling {
                filter: Filter::Bilinear,
                antialias: false,
            };
            let one = f64::from(1 << OPENCV_BITS);
            let axis = |i: usize| {
                geometry
                    .axis(i, sampling)?
                    .quantize(|weight| (weight * one).round_ties_even() as i32)
            };
            geometry.run(src, (OpenCvColumns, axis(1)?), (OpenCvRows, axis(0)?))
        }
    }
}

/// Resizes an interleaved float picture, without any rounding.
pub fn resize_f32(src: &[f32], geometry: &Geometry, sampling: Sampling) -> Result<Vec<f32>> {
    geometry.check(src.len())?;
    let axis = |i: usize| geometry.axis(i, sampling)?.quantize(|weight| weight as f32);
    geometry.run(src, (Float, axis(1)?), (Float, axis(0)?))
}

/// Resamples every spatial axis of a row-major `[channels, input…]` to `[channels, output…]`, the last axis first:
/// `torch.nn.functional.interpolate(…, align_corners=False)` for any number of axes. Tables of positions go through
/// here: bicubic in two axes, trilinear ([`Filter::Bilinear`]) in three, both without antialias.
pub fn interpolate(
    src: &[f32],
    channels: usize,
    input: &[usize],
    output: &[usize],
    sampling: Sampling,
) -> Result<Vec<f32>> {
    let count = |sizes: &[usize]| {
        sizes
            .iter()
            .try_fold(1, |count: usize, &size| count.checked_mul(size))
    };
    let samples = count(input).and_then(|count| count.checked_mul(channels));
    if input.len() != output.len()
        || samples != Some(src.len())
        || input.contains(&0)
        || output.contains(&0)
    {
        return Err(Error::BadInput(format!(
            "{} samples of {channels} channels cannot be resampled from {input:?} to {output:?}.",
            src.len()
        )));
    }
    let mut data = Cow::Borrowed(src);
    for axis in (0..input.len()).rev() {
        let inner = count(&output[axis + 1..]).ok_or_else(|| out_of_memory(()))?;
        let outer = channels * input[..axis].iter().product::<usize>();
        let lines = Lines {
            outer,
            length: input[axis],
            step: inner,
            inner,
        };
        let weights = Axis::new(sampling, input[axis], output[axis], 0..output[axis])?;
        data = Cow::Owned(pass(
            &Float,
            &data,
            lines,
            &weights.quantize(|weight| weight as f32)?,
        )?);
    }
    Ok(data.into_owned())
}

/// Binary places of Pillow's weights: 32, less 8 for the sample and 2 for sums that overshoot.
const PILLOW_BITS: u32 = 32 - 8 - 2;

/// Binary places that torch gives weights of which the largest is `peak`, so that each fits 16 bits.
fn bits_of_16(peak: f64) -> u32 {
    let fits = |bits: u32| ((0.5 + peak * f64::from(1 << bits)) as i32) < 1 << 15;
    (0..PILLOW_BITS)
        .find(|bits| !fits(bits + 1))
        .unwrap_or(PILLOW_BITS)
}

/// The largest weight of a whole axis, whatever part of it is wanted.
fn peak(sampling: Sampling, input: usize, output: usize) -> f64 {
    // When enlarging, the first output's largest weight lies in [1, 2) and no other reaches 2, which is all that
    // `bits_of_16` tells apart; so an enlarged axis of any length costs one evaluation.
    let outputs = if output > input { 1 } else { output };
    let mut weights = Vec::new();
    let mut peak = 0.0;
    for index in 0..outputs {
        sampling.weigh(input, output, index, &mut weights);
        peak = weights.iter().copied().fold(peak, f64::max);
    }
    peak
}

pub(super) fn reserved<T>(count: usize) -> Result<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(count).map_err(out_of_memory)?;
    Ok(vec)
}

fn out_of_memory<E>(_: E) -> Error {
    Error::OutOfMemory(
        "There is not enough memory to resize the picture. Scale it down first.".into(),
    )
}
