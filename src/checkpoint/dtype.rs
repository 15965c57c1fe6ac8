//! Element types: which ones a file may name, how those of weights become `f32`, and the compact forms that weights can
//! be kept in.

use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{Error, Result};

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 16-bit float with the exponent of a 32-bit one.
    BF16,
    /// 8-bit integer: weights where every row has a scale.
    I8,
    /// Any other type of the safetensors format: legal in a file, but not what weights are read from.
    Other {
        /// Name in a header.
        name: &'static str,
        /// Width of one element in bits.
        bits: u64,
    },
}

const OTHERS: [(&str, u64); 18] = [
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("BOOL", 8),
    ("U8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("I32", 32),
    ("U32", 32),
    ("C64", 64),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
];

impl Dtype {
    /// The type that a header calls `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::BF16),
            "I8" => Some(Self::I8),
            _ => OTHERS
                .iter()
                .find(|other| other.0 == name)
                .map(|&(name, bits)| Self::Other { name, bits }),
        }
    }

    /// The name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::I8 => "I8",
            Self::Other { name, .. } => name,
        }
    }

    /// Width of one element in bits.
    pub fn bits(self) -> u64 {
        match self {
            Self::F32 => 32,
            Self::F16 | Self::BF16 => 16,
            Self::I8 => 8,
            Self::Other { bits, .. } => bits,
        }
    }

    /// Whether weights can be read from it as they are.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }
}

/// Turns the bytes of one tensor, in chunks of any size, into `f32`.
#[derive(Debug)]
pub struct Decoder {
    dtype: Dtype,
    /// The element that the last chunk ended within.
    split: [u8; 4],
    split_len: usize,
}

impl Decoder {
    /// A decoder at the first byte of a tensor.
    pub fn new(dtype: Dtype) -> Self {
        debug_assert!(
            !matches!(dtype, Dtype::Other { .. }),
            "{} is not decodable",
            dtype.name()
        );
        Self {
            dtype,
            split: [0; 4],
            split_len: 0,
        }
    }

    /// How many bytes `elements` more elements take, less those of the first that came already.
    pub fn bytes(&self, elements: usize) -> usize {
        elements * self.dtype.bits() as usize / 8 - self.split_len
    }

    /// Decodes every element that ends in `chunk` to the start of `out`, which must have room for them, and returns how
    /// many they are.
    pub fn decode(&mut self, chunk: &[u8], out: &mut [f32]) -> usize {
        let width = self.dtype.bits() as usize / 8;
        let mut chunk = chunk;
        let mut done = 0;
        if self.split_len > 0 {
            let (head, rest) = chunk.split_at(chunk.len().min(width - self.split_len));
            self.split[self.split_len..][..head.len()].copy_from_slice(head);
            self.split_len += head.len();
            chunk = rest;
            if self.split_len < width {
                return 0;
            }
            convert(self.dtype, &self.split[..width], &mut out[..1]);
            done = 1;
        }
        let whole = chunk.len() / width;
        convert(
            self.dtype,
            &chunk[..whole * width],
            &mut out[done..][..whole],
        );
        let tail = &chunk[whole * width..];
        self.split[..tail.len()].copy_from_slice(tail);
        self.split_len = tail.len();
        done + whole
    }
}

fn convert(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    let halves = || bytes.as_chunks::<2>().0.iter();
    match dtype {
        Dtype::F32 => {
            for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *out = f32::from_le_bytes(bytes);
            }
        }
        Dtype::F16 => {
            for (out, &bytes) in out.iter_mut().zip(halves()) {
                *out = f16::from_le_bytes(bytes).to_f32();
            }
        }
        Dtype::BF16 => {
            for (out, &bytes) in out.iter_mut().zip(halves()) {
                *out = bf16::from_le_bytes(bytes).to_f32();
            }
        }
        Dtype::I8 => {
            for (out, &byte) in out.iter_mut().zip(bytes) {
                *out = f32::from(byte.cast_signed());
            }
        }
        Dtype::Other { .. } => {}
    }
}

/// A vector with room for `len` elements, or an error that says for what it was.
pub(crate) fn reserve<T>(len: usize, what: &str) -> Result<Vec<T>> {
    let mut data = Vec::new();
    match data.try_reserve_exact(len) {
        Ok(()) => Ok(data),
        Err(_) => Err(Error::OutOfMemory(format!(
            "there is no memory for the {} MB of {what}: use a smaller model, or weights of fewer bits",
            (len as u64 * size_of::<T>() as u64).div_ceil(1_000_000)
        ))),
    }
}

/// Rounds weights to 16 bits. `name` is whose they are and `first` the index of the first of them there, for the error about
/// a value that is too large for them.
pub fn to_f16(name: &str, first: usize, data: &[f32]) -> Result<Vec<f16>> {
    // The smallest magnitude that rounds to infinity.
    if let Some(index) = data.iter().position(|value| value.abs() >= 65520.0) {
        return Err(Error::Unsupported(format!(
            "{name} holds {} at index {}, which does not fit f16: use f32",
            data[index],
            first + index
        )));
    }
    let mut halves = reserve(data.len(), name)?;
    halves.resize(data.len(), f16::ZERO);
    halves.convert_from_f32_slice(data);
    Ok(halves)
}

/// A matrix in 8 bits: every row has its own scale, so that its largest magnitude is ±127 steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Q8 {
    /// Steps, row-major.
    pub data: Vec<i8>,
    /// Size of one step, per row; 0 for a row of zeros.
    pub scales: Vec<f32>,
}

impl Q8 {
    /// Rounds the `rows` equally long rows of `data`, half to even. `name` is whose they are, for the error about memory.
    pub fn quantize(name: &str, data: &[f32], rows: usize) -> Result<Self> {
        debug_assert!(
            rows > 0 && data.len().is_multiple_of(rows),
            "{name} has no {rows} equal rows"
        );
        let mut quantized = Self {
            data: reserve(data.len(), name)?,
            scales: reserve(rows, name)?,
        };
        for row in data.chunks_exact((data.len() / rows).max(1)) {
            let scale = row.iter().fold(0f32, |max, value| max.max(value.abs())) / 127.0;
            quantized.scales.push(scale);
            // A cast from float saturates, and takes the 0/0 of a zero row to 0.
            quantized.data.extend(
                row.iter()
                    .map(|value| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8),
            );
        }
        Ok(quantized)
    }

    /// The weights again, each at most half a step from what it was.
    pub fn dequantize(&self) -> Vec<f32> {
        let columns = (self.data.len() / self.scales.len().max(1)).max(1);
        let rows = self.data.chunks_exact(columns).zip(&self.scales);
        rows.flat_map(|(row, &scale)| row.iter().map(move |&step| f32::from(step) * scale))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_in_chunks(dtype: Dtype, bytes: &[u8], sizes: &[usize]) -> Vec<f32> {
        let mut decoder = Decoder::new(dtype);
        let mut out = vec![0.0; bytes.len() * 8 / dtype.bits() as usize];
        let (mut done, mut rest) = (0, bytes);
        for size in sizes.iter().chain(std::iter::repeat(&usize::MAX)) {
            let (chunk, tail) = rest.split_at((*size).min(rest.len()));
            done += decoder.decode(chunk, &mut out[done..]);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(done, out.len());
        out
    }

    #[test]
    fn names_are_read_and_written() {
        for name in ["F32", "F16", "BF16"]
            .into_iter()
            .chain(OTHERS.map(|other| other.0))
        {
            assert_eq!(Dtype::from_name(name).unwrap().name(), name);
        }
        assert_eq!(
            (Dtype::from_name("f32"), Dtype::from_name("")),
            (None, None)
        );
    }

    #[test]
    fn values_that_f16_cannot_hold_are_refused() {
        assert_eq!(
            to_f16("x", 0, &[65504.0, -65519.9, 1e-8]).unwrap(),
            [f16::MAX, f16::MIN, f16::ZERO]
        );
        for value in [65520.0, -1e30] {
            let error = to_f16("blocks.0", 7, &[0.0, value]).unwrap_err();
            assert_eq!(error.code(), "unsupported");
            assert!(
                error.to_string().contains("blocks.0") && error.to_string().contains("index 8"),
                "{error}"
            );
        }
    }

    #[test]
    fn eight_bits_round_half_to_even_in_steps_of_the_row() {
        let q8 = Q8::quantize(
            "x",
            &[
                127.0, -0.5, 1.5, 2.5, 0.0, 0.0, 0.0, -0.0, -2.0, 1.0, 0.0, 2.0,
            ],
            3,
        )
        .unwrap();
        assert_eq!(q8.data, [127, 0, 2, 2, 0, 0, 0, 0, -127, 64, 0, 127]);
        assert_eq!(q8.scales, [1.0, 0.0, 2.0 / 127.0]);
        assert_eq!(
            q8.dequantize()[..8],
            [127.0, 0.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]
        );
        // The step of such a row is so small that it is no normal number.
        let tiny = Q8::quantize("x", &[1e-45, -1e-44], 1).unwrap();
        assert!(tiny.dequantize().iter().all(|value| value.is_finite()));
    }

    proptest! {
        #[test]
        fn chunk_boundaries_do_not_matter(values: Vec<f32>, sizes in prop::collection::vec(0usize..9, 0..40)) {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            prop_assert_eq!(bits(&decode_in_chunks(Dtype::F32, &bytes, &sizes)), bits(&values));
            let halves: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            let bytes: Vec<u8> = halves.iter().flat_map(|value| value.to_le_bytes()).collect();
            let expected: Vec<f32> = halves.iter().map(|value| value.to_f32()).collect();
            prop_assert_eq!(bits(&decode_in_chunks(Dtype::F16, &bytes, &sizes)), bits(&expected));
            let halves: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
            let bytes: Vec<u8> = halves.iter().flat_map(|value| value.to_le_bytes()).collect();
            let expected: Vec<f32> = halves.iter().map(|value| value.to_f32()).collect();
            prop_assert_eq!(bits(&decode_in_chunks(Dtype::BF16, &bytes, &sizes)), bits(&expected));
        }

        #[test]
        fn eight_bits_are_at_most_half_a_step_off(rows in 1usize..5, row in prop::collection::vec(-1e3f32..1e3, 1..20)) {
            let data: Vec<f32> = (0..rows).flat_map(|r| row.iter().map(move |value| value * (r + 1) as f32)).collect();
            let q8 = Q8::quantize("x", &data, rows).unwrap();
            for (index, (restored, value)) in q8.dequantize().iter().zip(&data).enumerate() {
                let step = q8.scales[index / row.len()];
                prop_assert!((restored - value).abs() <= step * 0.50001, "{} for {}", restored, value);
            }
        }
    }
}
