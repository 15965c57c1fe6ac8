//! Random numbers. Everything random here draws from a [`Generator`] that its caller passes, so that it can be replayed.

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use rand_mt::Mt;

/// Longest name of a [`Stream`], in bytes: what the key of the cipher has left beside the seed.
const MAX_NAME: usize = 24;

/// A source of 32-bit words, and what is made of them in one way for every source.
pub trait Generator {
    /// The next word.
    fn word(&mut self) -> u32;

    /// Uniform in [0, 1), a multiple of 2⁻²⁴ that takes one word, as `torch.rand` makes its f32.
    fn uniform(&mut self) -> f32 {
        (self.word() & 0xFF_FFFF) as f32 / 16_777_216.0
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³ that takes two words.
    fn uniform_f64(&mut self) -> f64 {
        let (high, low) = (u64::from(self.word()), u64::from(self.word()));
        ((high << 32 | low) >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// An integer in [0, n), of one word, as `torch.randint` makes it: by remainder, whose bias is at most n / 2³².
    ///
    /// # Panics
    /// When `n` is 0 or does not fit 32 bits.
    fn below(&mut self, n: usize) -> usize {
        assert!(n as u64 <= 1 << 32, "{n} is more than a word can count");
        (u64::from(self.word()) % n as u64) as usize
    }

    /// Two independent standard normals, by Box and Muller's transform of two [`uniform_f64`](Self::uniform_f64).
    fn normal_pair(&mut self) -> [f64; 2] {
        // 1 − u is never 0, whose logarithm is none.
        let radius = (-2.0 * libm::log(1.0 - self.uniform_f64())).sqrt();
        let angle = std::f64::consts::TAU * self.uniform_f64();
        [radius * libm::cos(angle), radius * libm::sin(angle)]
    }

    /// Fills `out` with standard normals.
    fn fill_normal(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let normals = self.normal_pair();
            for (value, normal) in pair.iter_mut().zip(normals) {
                *value = normal as f32;
            }
        }
    }

    /// The numbers 0 to `n` − 1 in random order: each place in turn is swapped with one of itself and those after it.
    fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in 0..n.saturating_sub(1) {
            order.swap(i, i + self.below(n - i));
        }
        order
    }
}

/// The generator of PyTorch on the CPU: MT19937.
#[derive(Clone, Debug)]
pub struct Torch(Mt);

impl Torch {
    /// As after `torch.manual_seed(seed)`, which takes the low 32 bits.
    pub fn new(seed: u64) -> Self {
        Self(Mt::new(seed as u32))
    }
}

impl Generator for Torch {
    fn word(&mut self) -> u32 {
        self.0.next_u32()
    }
}

/// The generator of this library: one of the independent sequences that seed, name and step count out. ChaCha with 8 rounds,
/// whose key and nonce they are.
#[derive(Debug, PartialEq, Eq)]
pub struct Stream(ChaCha8Rng);

/// By hand, because a generator that may also guard secrets refuses to be copied.
impl Clone for Stream {
    fn clone(&self) -> Self {
        Self::from_state(&self.state())
    }
}

impl Stream {
    /// Bytes of [`state`](Self::state).
    pub const STATE_BYTES: usize = 49;

    /// The start of the sequence for what `name` says ("masks"), in step `step` of the run with `seed`. A run needs to
    /// save no more than its seed and its step.
    ///
    /// # Panics
    /// When the name is longer than 24 bytes.
    pub fn new(seed: u64, name: &str, step: u64) -> Self {
        assert!(name.len() <= MAX_NAME, "{name} is too long for a name");
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..8 + name.len()].copy_from_slice(name.as_bytes());
        let mut stream = ChaCha8Rng::from_seed(key);
        stream.set_stream(step);
        Self(stream)
    }

    /// Where the sequence is: key, nonce and position. The state of a generator that goes on across steps.
    pub fn state(&self) -> [u8; Self::STATE_BYTES] {
        self.0.serialize_state()
    }

    /// Goes on where [`state`](Self::state) was taken.
    pub fn from_state(state: &[u8; Self::STATE_BYTES]) -> Self {
        Self(ChaCha8Rng::deserialize_state(state))
    }
}

impl Generator for Stream {
    fn word(&mut self) -> u32 {
        self.0.next_u32()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_is_the_mersenne_twister() {
        // The 10,000th word that the C++ standard requires of mt19937 with its default seed.
        let mut torch = Torch::new(5489);
        let word = (0..10_000).map(|_| torch.word()).last();
        assert_eq!(word, Some(4_123_659_995));
        assert_eq!(Torch::new(5489 + (1 << 32)).word(), Torch::new(5489).word());
    }

    #[test]
    fn a_stream_is_chacha8() {
        // First key stream bytes for the zero key and nonce: Strombergson, draft-strombergson-chacha-test-vectors.
        let mut stream = Stream::new(0, "", 0);
        let bytes: Vec<u8> = (0..4).flat_map(|_| stream.word().to_le_bytes()).collect();
        assert_eq!(
            bytes,
            [
                0x3e, 0x00, 0xef, 0x2f, 0x89, 0x5f, 0x40, 0xd6, 0x7f, 0x5b, 0xb8, 0xe8, 0x1f, 0x09,
                0xa5, 0xa1
            ]
        );
    }

    #[test]
    fn seed_name_and_step_each_make_another_stream() {
        let words = |seed, name, step| {
            let mut stream = Stream::new(seed, name, step);
            std::array::from_fn::<u32, 8, _>(|_| stream.word())
        };
        let first = words(1, "masks", 2);
        assert_eq!(first, words(1, "masks", 2));
        for other in [
            words(2, "masks", 2),
            words(1, "crops", 2),
            words(1, "masks", 3),
            words(1 << 40, "masks", 2),
            words(1, "masks", 1 << 40),
        ] {
            assert_eq!(first.iter().filter(|w| other.contains(w)).count(), 0);
        }
    }

    #[test]
    fn a_stream_goes_on_from_its_state() {
        for drawn in [0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257] {
            let mut stream = Stream::new(7, "a name of 24 characters!", 9);
            for _ in 0..drawn {
                stream.word();
            }
            let mut again = Stream::from_state(&stream.state());
            for _ in 0..300 {
                assert_eq!(again.word(), stream.word(), "after {drawn} words");
            }
        }
    }

    #[test]
    fn integers_and_uniforms_fill_their_range_evenly() {
        let mut stream = Stream::new(3, "", 0);
        let mut counts = [0; 7];
        let (mut sum, mut sum64) = (0.0, 0.0);
        for _ in 0..70_000 {
            counts[stream.below(7)] += 1;
            sum += f64::from(stream.uniform());
            sum64 += stream.uniform_f64();
        }
        // Five standard deviations: √(n·p·(1 − p)) = 92.6 of a count, √(1/12/n) = 0.0011 of a mean.
        assert!(counts.iter().all(|&c| (9537..10463).contains(&c)));
        for mean in [sum / 70_000.0, sum64 / 70_000.0] {
            assert!((mean - 0.5).abs() < 0.0055, "{mean}");
        }
        assert_eq!(stream.below(1), 0);
    }

    #[test]
    fn uniforms_stay_below_one() {
        struct Ones;
        impl Generator for Ones {
            fn word(&mut self) -> u32 {
                u32::MAX
            }
        }
        assert!(Ones.uniform() < 1.0 && Ones.uniform_f64() < 1.0);
        assert!(Ones.normal_pair().iter().all(|v| v.is_finite()));
    }

    #[test]
    fn normals_have_the_moments_of_normals() {
        let mut values = vec![0.0; 99_999];
        Stream::new(4, "", 0).fill_normal(&mut values);
        let moment = |k: i32| {
            values.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / values.len() as f64
        };
        // Five standard deviations of each mean: √(E x²ᵏ − (E xᵏ)²) / √n.
        for (k, expected, variance) in
            [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)]
        {
            let allowed = 5.0 * f64::sqrt(variance / values.len() as f64);
            assert!(
                (moment(k) - expected).abs() < allowed,
                "moment {k}: {}",
                moment(k)
            );
        }
        let neighbours = values
            .windows(2)
            .map(|w| f64::from(w[0] * w[1]))
            .sum::<f64>();
        assert!((neighbours / values.len() as f64).abs() < 5.0 / f64::sqrt(values.len() as f64));
    }

    #[test]
    fn permutations_hold_each_number_once_and_every_order_is_as_likely() {
        let mut stream = Stream::new(5, "", 0);
        assert!(stream.permutation(0).is_empty());
        let mut orders = std::collections::BTreeMap::new();
        for _ in 0..24_000 {
            *orders.entry(stream.permutation(4)).or_insert(0) += 1;
        }
        assert_eq!(orders.len(), 24);
        // Five standard deviations of a count are 5·√(1000·23/24) = 155.
        assert!(orders.values().all(|c| (845..1155).contains(c)));
        let mut sorted = stream.permutation(1000);
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1000));
    }
}
