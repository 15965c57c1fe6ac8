//! The tolerances of the fixtures' README, section 7.

/// What computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// f32 on the CPU.
    Cpu,
    /// f32 on WebGPU.
    WebGpu,
}

/// A row of the table of tolerances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// Activations of the tiny I-JEPA and V-JEPA 1, and of probes.
    Activation,
    /// Those of the tiny V-JEPA 2, whose attention is sharpened.
    Sharpened,
    /// Those of the tiny V-JEPA 2.1.
    Newest,
    /// Fixed tables.
    Table,
    /// f32 resize on the 0–255 scale.
    Resize,
    /// 8-bit resize.
    ResizeU8,
    /// Interpolation of position tables.
    Interpolation,
    /// The real-geometry models, from the reference's resized picture.
    Photo,
    /// Tokens of the real-geometry models from the raw picture.
    RawTokens,
    /// Their mean.
    RawPooled,
    /// Pixel values: exact up to rounding.
    Pixels,
    /// Scalar losses.
    Loss,
    /// Gradients of objectives.
    Gradient,
    /// Gradients of I-JEPA's parameters.
    ParameterGradient,
    /// Parameters after a step.
    Updated,
    /// Statistics of SIGReg.
    Statistic,
    /// SIGReg of random Gaussian samples.
    MonteCarlo,
    /// The same without the factor of the number of samples, which is given.
    MonteCarloPerSample(usize),
    /// GELU.
    Gelu,
    /// Learning rates, weight decay, momentum.
    Schedule,
    /// Uniform random numbers, and what is read off whole numbers without rounding.
    Uniform,
    /// Whole numbers.
    Exact,
    /// Numbers that the fixture has rounded to so many decimals.
    Rounded(i32),
    /// Central differences of f32 results, relative to the gradient's size; not of the fixtures.
    Difference,
}

impl Quantity {
    /// The largest absolute difference allowed.
    pub fn tolerance(self, arithmetic: Arithmetic) -> f64 {
        let (cpu, gpu) = match self {
            Self::Activation => (2e-5, 1e-4),
            Self::Sharpened => (1e-4, 5e-4),
            Self::Newest => (5e-5, 2e-4),
            Self::Table => (1e-6, 1e-5),
            Self::Resize => (1e-3, 1e-2),
            Self::ResizeU8 => (1.0, 1.0),
            Self::Interpolation => (5e-6, 5e-5),
            Self::Photo => (5e-5, 2e-4),
            Self::RawTokens => (6e-2, 6e-2),
            Self::RawPooled => (1e-2, 1e-2),
            Self::Pixels => (1e-6, 1e-6),
            Self::Loss => (2e-6, 2e-5),
            Self::Gradient => (5e-6, 2e-5),
            Self::ParameterGradient => (1e-6, 5e-6),
            Self::Updated => (1e-5, 5e-5),
            Self::Statistic => (5e-6, 5e-5),
            Self::MonteCarlo => (0.08, 0.08),
            Self::MonteCarloPerSample(n) => (0.08 / n as f64, 0.08 / n as f64),
            Self::Gelu => (2e-6, 1e-5),
            Self::Schedule | Self::Uniform => (1e-9, 1e-9),
            Self::Exact => (0.0, 0.0),
            Self::Rounded(decimals) => {
                // A little more than half a unit, where ties are rounded either way.
                let half = 0.500_001 * 10f64.powi(-decimals);
                (half, half)
            }
            Self::Difference => (5e-4, 5e-4),
        };
        match arithmetic {
            Arithmetic::Cpu => cpu,
            Arithmetic::WebGpu => gpu,
        }
    }
}
